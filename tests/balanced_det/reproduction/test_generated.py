"""Generated READMEs and metafiles, and the record of measurements."""

from __future__ import annotations

import json
import shutil

import pytest
from work_dir_cases import ROOT

from balanced_det import papers
from balanced_det.reproduction import generated
from balanced_det.reproduction.generated import GeneratedError
from balanced_det.reproduction.measurement import Measurement

NAME = papers.find(['A2.4'])[0].config
GENERATED = [
    *(f'configs/{folder}/{name}' for folder in ('iou_balanced', 'harmonic') for name in ('README.md', 'metafile.yml')),
    'model-index.yml',
]


@pytest.fixture
def root(tmp_path):
    """A copy of what is generated, up to date and without recorded measurements."""
    for name in GENERATED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    generated.update(tmp_path)
    return tmp_path


def test_the_generated_files_of_the_repository_are_up_to_date():
    assert generated.stale() == '', 'run python tools/report.py --update'


def test_a_stale_file_is_shown_and_mended(root):
    readme = root / 'configs' / 'iou_balanced' / 'README.md'
    text = readme.read_text()
    readme.write_text(text.replace('| 34.4 |', '| 43.4 |', 1).replace('# IoU-balanced losses', '# By hand', 1))
    diff = generated.stale(root)
    assert '--- configs/iou_balanced/README.md' in diff
    assert diff.count('\n-|') == diff.count('\n+|') == 1
    assert generated.update(root) == [readme]
    assert generated.stale(root) == ''
    assert readme.read_text() == text.replace('# IoU-balanced losses', '# By hand', 1)


def test_lost_markers_are_named_and_nothing_is_written(root):
    path = root / 'configs' / 'harmonic' / 'metafile.yml'
    path.write_text('Collections: []\n')
    with pytest.raises(GeneratedError, match=f'{path} lacks the line'):
        generated.update(root)
    assert path.read_text() == 'Collections: []\n'


def test_only_comparable_measurements_are_recorded_and_they_show(root):
    good = Measurement({'AP': 35.6, 'AP50': 54.2}, ('batch 2 x 6',), True)
    trial = Measurement({'AP': 1.0}, ('another data set: bccd',), False)
    empty = Measurement({}, ('tested, no box detected',), True)
    other, third = (papers.find([key])[0].config for key in ('A2.1', 'A2.2'))
    recorded, left_out = generated.record({NAME: good, other: trial, third: empty}, root)
    assert recorded == [NAME]
    assert left_out == [f'{other}: another data set: bccd', f'{third}: tested, no box detected']
    assert json.loads((root / 'configs' / 'measured.json').read_text()) == {
        NAME: {'values': {'AP': 35.6, 'AP50': 54.2}, 'marks': ['batch 2 x 6']}
    }
    folder = root / 'configs' / 'iou_balanced'
    assert set(generated.update(root)) == {folder / 'README.md', folder / 'metafile.yml'}
    lines = (folder / 'README.md').read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith('| A2.4'))
    assert 'not trained' not in lines[at]
    assert lines[at + 1].split('|')[2].strip() == 'measured'
    assert '| **35.6** | **54.2** |' in ' '.join(lines[at + 1].split())
    assert 'box AP: 35.6' in (folder / 'metafile.yml').read_text()


def test_a_second_record_keeps_the_first(root):
    generated.record({NAME: Measurement({'AP': 35.6}, (), True)}, root)
    other = papers.find(['A2.1'])[0].config
    generated.record({other: Measurement({'AP': 34.0}, (), True)}, root)
    assert sorted(generated.read_record(root)) == sorted([NAME, other])


def test_a_broken_record_is_named_and_kept(root):
    path = root / 'configs' / 'measured.json'
    path.write_text('{"x": 1}')
    for use in (generated.stale, generated.update, lambda root: generated.record({}, root)):
        with pytest.raises(GeneratedError, match=f'{path} is broken'):
            use(root)
    assert path.read_text() == '{"x": 1}'


@pytest.mark.parametrize(('paper', 'folder'), [('A', 'iou_balanced'), ('B', 'harmonic')])
def test_metafiles_have_each_config_of_the_rows_once_and_invent_nothing(paper, folder):
    yaml = pytest.importorskip('yaml')
    content = yaml.safe_load((ROOT / 'configs' / folder / 'metafile.yml').read_text())
    names = [model['Name'] for model in content['Models']]
    configs = [model['Config'] for model in content['Models']]
    assert len(names) == len(set(names))
    assert set(configs) == {row.config for row in papers.rows() if row.paper == paper and not row.quoted}
    assert {model['In Collection'] for model in content['Models']} == {content['Collections'][0]['Name']}
    recorded = generated.read_record()
    assert [model['Config'] for model in content['Models'] if 'Results' in model] == [
        name for name in configs if name in recorded
    ]
    assert yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import'] == [
        'configs/iou_balanced/metafile.yml',
        'configs/harmonic/metafile.yml',
    ]

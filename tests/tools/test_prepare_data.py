"""tools/prepare_data.py as a user runs it: tables, exit status, what is written, errors in plain words."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

from balanced_det.datasets.preparation import cityscapes, coco, voc

TOOL = Path(__file__).parents[2] / 'tools' / 'prepare_data.py'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the tool in an empty folder; returns its output and exit status (the message of an error)."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', ['prepare_data.py', *map(str, arguments)])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name='__main__')
        return capsys.readouterr().out, end.value.code

    return run


@pytest.fixture
def coco_tiny(request) -> Path:
    return Path(os.environ.get('COCO_TINY_ROOT') or request.getfixturevalue('shared_data') / 'coco_tiny')


@pytest.fixture
def bccd(request, tmp_path) -> Path:
    """BCCD in a folder that can be written to."""
    root = Path(os.environ.get('BCCD_ROOT') or request.getfixturevalue('shared_data') / 'bccd')
    (tmp_path / 'bccd').mkdir()
    for name in ('Annotations', 'ImageSets', 'JPEGImages'):
        (tmp_path / 'bccd' / name).symlink_to(root.resolve() / name)
    return tmp_path / 'bccd'


def test_part_of_coco(run, coco_tiny):
    root = coco_tiny.resolve()
    out, status = run('coco', '--root', root)
    assert status == 1
    assert out.splitlines()[1].split() == [
        *('annotations/instances_train2017.json', '118287', 'images', '80', 'images', 'WRONG')
    ]
    assert 'train2017/: 80 images, expected 118287 (a part of the set on purpose? --subset)' in out
    assert '    from http://images.cocodataset.org/zips/train2017.zip (https://cocodataset.org/#download)' in out
    assert out.splitlines()[-1] == f'{root}: 4 of 5 things are wrong'
    out, status = run('coco', '--root', root, '--subset', '--deep', '--workers', 1)
    assert status == 0
    assert out.splitlines()[-1] == f'{root}: complete'


def test_set_in_the_format_of_voc(run, bccd):
    out, status = run('voc', '--root', 'bccd', '--classes', 'RBC', 'WBC', 'Platelets')
    assert status == 0
    assert 'annotations/trainval.json: 3943 boxes, 2 of zero size, which trainings leave out' in out
    content = json.loads((bccd / 'annotations' / 'test.json').read_text())
    assert [category['name'] for category in content['categories']] == ['RBC', 'WBC', 'Platelets']
    before = (bccd / 'annotations' / 'test.json').stat().st_mtime_ns
    out, status = run('voc', '--root', 'bccd', '--classes', 'RBC', 'WBC', 'Platelets')
    assert [line.split()[-1] for line in out.splitlines() if line.startswith('annotations/') and 'images' in line] == [
        'kept'
    ] * 4
    assert (bccd / 'annotations' / 'test.json').stat().st_mtime_ns == before
    out, status = run('voc', '--root', 'bccd')
    assert status == 0
    assert (bccd / 'annotations' / 'test.json').stat().st_mtime_ns == before
    out, status = run('voc', '--root', 'bccd', '--classes', 'RBC', 'WBC')
    assert status == 1
    assert "annotations/test.json: objects have 1 names that are no classes: Platelets ('Platelets' in" in out
    assert (bccd / 'annotations' / 'test.json').stat().st_mtime_ns == before


def test_errors_are_one_line(run, tmp_path):
    assert run('coco') == (
        '',
        'error: data/coco: no such folder; docs/data.md says what it must hold and where to get it',
    )
    _, status = run('voc', '--root', tmp_path)
    assert status.startswith(f'error: {tmp_path} has neither a folder VOC2007 or VOC2012 nor a split file')
    _, status = run('voc', '--root', tmp_path, '--classes', 'RBC', 'RBC', 'WBC')
    assert status == 'error: --classes names RBC twice'
    (tmp_path / 'VOC2007').mkdir()
    out, status = run('voc', '--root', tmp_path)
    assert status == 1
    assert 'VOC2007/ImageSets/Main/trainval.txt: no such file' in out


def test_wrong_arguments(run, capsys):
    assert run('imagenet')[1] == 2
    assert run('coco', '--force')[1] == 2  # there is nothing to convert
    assert run('coco', '--workers', '0')[1] == 2


def test_help_shows_examples(run):
    out, status = run('-h')
    assert status == 0
    assert 'python tools/prepare_data.py voc --root data/bccd --classes RBC WBC Platelets' in out


def test_interruption_is_told(run, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('balanced_det.datasets.preparation.check_coco', interrupt)
    assert run('coco', '--root', tmp_path)[1] == 'Stopped. The same command goes on where it stopped.'


def test_published_counts():
    assert [(split.images, split.files) for split in coco.SPLITS] == [(118287, 118287), (5000, 5000), (20288, 40670)]
    assert [split.images for split in voc.VOC] == [5011, 4952, 11540]
    assert dict(train=2975, val=500) == cityscapes.IMAGES

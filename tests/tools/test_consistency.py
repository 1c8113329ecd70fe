"""tools/consistency.py as a user runs it: table, JSON, files, and errors in plain words."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'consistency.py'


@pytest.fixture
def files(tmp_path):
    """Two images, three boxes; detections with (IoU, score) of (.8, .9), (.6, .4), (0, .3) and (.5, .8)."""
    truth = [(1, [0, 0, 100, 100]), (1, [200, 0, 100, 100]), (2, [0, 0, 100, 100])]
    found = [
        (1, [0, 0, 80, 100], 0.9),
        (1, [200, 0, 60, 100], 0.4),
        (1, [400, 300, 50, 50], 0.3),
        (2, [0, 0, 50, 100], 0.8),
    ]
    content = dict(
        images=[dict(id=image, width=640, height=480) for image in (1, 2)],
        categories=[dict(id=1, name='thing')],
        annotations=[
            dict(id=n, image_id=image, category_id=1, bbox=box, area=10000, iscrowd=0)
            for n, (image, box) in enumerate(truth, start=1)
        ],
    )
    results = [dict(image_id=image, category_id=1, bbox=box, score=score) for image, box, score in found]
    (tmp_path / 'val.json').write_text(json.dumps(content))
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'test.bbox.json').write_text(json.dumps(results))
    (tmp_path / 'half.bbox.json').write_text(json.dumps(results[:2]))
    return tmp_path


@pytest.fixture
def run(files, monkeypatch, capsys):
    """Runs the tool in the folder of the files; returns its output and error output, and its exit status."""

    def run(*arguments):
        monkeypatch.chdir(files)
        monkeypatch.setattr(sys, 'argv', ['consistency.py', *map(str, arguments)])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        status = None
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return captured.out, captured.err, status

    return run


def test_table_and_files(run, files):
    out, _, status = run('mine/test.bbox.json', 'val.json', 'half.bbox.json', '--names', 'mine,half', '--out', 'there')
    assert status is None
    head, mine, half, *_ = out.splitlines()
    assert head.split() == ['detections', 'found', 'mean', 'gap', 'Pearson', 'Spearman', 'both', 'high']
    # Scores .9 .4 .8 and IoUs .8 .6 .5: deviations .2 -.3 .1 and .1667 -.0333 -.1333, so r = .03 / sqrt(.14 * .04667).
    assert mine.split() == ['mine', '4', '3', '0.2000', '0.3712', '0.5000', '0.5000']
    assert half.split() == ['half', '2', '2', '0.1500', '1.0000', '1.0000', '0.5000']
    assert (files / 'there' / 'consistency.png').read_bytes().startswith(b'\x89PNG')
    rows = list(csv.DictReader((files / 'there' / 'curves.csv').open()))
    assert [row['name'] for row in rows] == ['mine'] * 10 + ['half'] * 10
    assert rows[6] == dict(name='mine', iou='0.80', detections='1', mean_score='0.900000', share_above='0.250000')
    assert rows[1] == dict(name='mine', iou='0.55', detections='0', mean_score='nan', share_above='0.500000')


def test_json_is_all_there_is(run):
    out, _, _ = run('mine/test.bbox.json', 'val.json', '--json', '--min-iou', '0.7', '--max-per-image', '1')
    result = json.loads(out)['mine/test.bbox.json']
    assert (result['detections'], result['found']) == (2, 1)
    assert result['mean_gap'] == pytest.approx(0.1)
    assert result['pearson'] is None  # of one detection
    np.testing.assert_allclose(result['curves']['share_above'], [1, *[0.5] * 6, 0, 0, 0])
    assert result['curves']['mean_score'][:2] == [0.8, None]


def test_options_reach_the_measures(run):
    out, _, _ = run('mine/test.bbox.json', 'val.json', '--min-score', '0.35', '--high-score', '0.85')
    assert out.splitlines()[1].split()[1:] == ['3', '3', '0.2000', '0.3712', '0.5000', '0.3333']
    out, _, _ = run('mine/test.bbox.json', 'val.json', '--high-iou', '0.45', '--high-score', '0.35')
    assert out.splitlines()[1].split()[-1] == '0.7500'


RESULT = dict(image_id=1, category_id=1, bbox=[0, 0, 9, 9], score=0.5)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'wrong.json: no such file'),
        ('{', 'wrong.json is no JSON file'),
        ('{"images": []}', 'wrong.json is no COCO results file, which is a list of detections'),
        ('[1, 2]', 'wrong.json is no COCO results file'),
        ('[]', 'wrong.json holds no detections'),
        (json.dumps([dict(image_id=1, category_id=1, segmentation={}, score=1)]), 'detections without bbox'),
        (json.dumps([{**RESULT, 'image_id': image} for image in (1, 8, 9)]), 'do not know 2 of its image ids (8, 9)'),
        (json.dumps([{**RESULT, 'category_id': 7}]), 'do not know 1 of its category ids (7)'),
    ],
)
def test_predictions_that_cannot_be_used(run, files, content, message):
    if content is not None:
        (files / 'wrong.json').write_text(content)
    out, _, status = run('wrong.json', 'val.json')
    assert message in status
    assert status.startswith('error: wrong.json')
    assert not out
    assert not (files / 'work_dirs').exists()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no such file'),
        (json.dumps([RESULT]), 'give the predictions first, then the annotations'),
        ('{"images": []}', 'is no COCO annotation file: it has no list annotations and no list categories'),
        (
            json.dumps(dict(images=[], categories=[], annotations=[dict(iscrowd=1, bbox=[0, 0, 1, 1])])),
            'holds no ground',
        ),
    ],
)
def test_annotations_that_cannot_be_used(run, files, content, message):
    if content is not None:
        (files / 'wrong.json').write_text(content)
    _, _, status = run('mine/test.bbox.json', 'wrong.json')
    assert message in status


@pytest.mark.parametrize('names', ['a', 'a,a', 'a,b,c'])
def test_names_must_fit(run, names):
    _, err, status = run('mine/test.bbox.json', 'val.json', 'half.bbox.json', '--names', names)
    assert status == 2
    assert '--names: 2 different names are needed' in err

"""tools/papers.py as a user runs it."""

from __future__ import annotations

import csv
import io
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from balanced_det import papers

TOOL = Path(__file__).parents[2] / 'tools' / 'papers.py'


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the tool; returns its output and its exit status."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['papers.py', *arguments])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        status = None
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as end:
            status = end.code
        return capsys.readouterr().out, status

    return run


def test_list_has_every_row_with_its_config(run):
    out, status = run('list')
    assert status is None
    lines = [line.split() for line in out.splitlines() if '.' in line.partition(' ')[0]]
    assert [line[0] for line in lines] == [row.key for row in papers.rows()]
    for line, row in zip(lines, papers.rows()):
        assert ' '.join(line).startswith(
            f'{row.key} {row.model} {row.backbone} {row.schedule} {row.reported["AP"]:.1f} '
        )
        assert ' '.join(line).endswith(row.config or 'quoted only')
    assert max(map(len, out.splitlines())) <= 160


def test_columns_of_a_table_are_aligned(run):
    out, _ = run('list', 'A3')
    heading, *lines = out.splitlines()
    assert heading == 'A3  eta of the classification loss, lambda of the localisation loss (coco, val2017)'
    assert lines[0].split() == ['row', 'model', 'backbone', 'schedule', 'AP', 'config']
    assert {line.index('configs/') for line in lines[1:]} == {lines[0].index('config')}
    assert {line.index('ResNet') for line in lines[1:]} == {lines[0].index('backbone')}


@pytest.mark.parametrize(
    ('arguments', 'keys'),
    [
        (['B4', 'a2.3'], ['B4.1', 'B4.2', 'A2.3']),
        (['--paper', 'b'], [row.key for row in papers.rows() if row.paper == 'B']),
        (['A2.3', 'B4', '--paper', 'A'], ['A2.3']),
    ],
)
def test_list_of_some(run, arguments, keys):
    out, _ = run('list', '--csv', *arguments)
    assert [line['key'] for line in csv.DictReader(io.StringIO(out))] == keys


def test_csv_has_everything(run):
    out, _ = run('list', '--csv')
    lines = list(csv.DictReader(io.StringIO(out)))
    assert len(lines) == 115
    for line, row in zip(lines, papers.rows()):
        names = ('key', 'model', 'backbone', 'schedule', 'data', 'split')
        assert [line[name] for name in names] == [getattr(row, name) for name in names]
        assert line['config'] == (row.config or '')
        assert {name: float(line[name]) for name in papers.METRICS if line[name]} == row.reported
        assert {name: line[name] for name in papers.HYPER_PARAMETERS if line[name]} == {
            name: str(value) for name, value in row.hyper.items()
        }


def test_show_of_a_row(run):
    out, _ = run('show', 'A2.3')
    table, _, numbers_and_ways = out.partition('row ')
    assert table.startswith(
        'A2  Each of the two losses in RetinaNet (coco, val2017)\n\nTrained on train2017 at 1000 x 600'
    )
    assert '- The smaller images make the baseline 1.2 AP worse' in table
    head, numbers, _, key, *ways = numbers_and_ways.splitlines()
    assert head.split()[3:] == ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AP60', 'AP70', 'AP80', 'AP90', 'losses']
    assert numbers.split()[:4] == ['A2.3', 'RetinaNet', 'ResNet50', '1x']
    assert '  35.2  53.7  37.6  17.9  39.3  48.5  49.3  42.3  31.8  13.1  ' in numbers
    assert numbers.endswith('  lambda 1.5, w_loc 3.049')
    config = 'configs/iou_balanced/coco/retinanet_r50_fpn_iou-balanced-loc-2xb6-1000x600-1x_coco.py'
    last = 'work_dirs/retinanet_r50_fpn_iou-balanced-loc-2xb6-1000x600-1x_coco/last_checkpoint'
    assert key == 'A2.3'
    assert ways[:3] == [
        f'  {config}',
        f'  python tools/train.py {config} --auto-scale-lr',
        f'  python tools/test.py {config} "$(cat {last})"',
    ]


def test_show_of_a_table_has_all_rows(run):
    out, _ = run('show', 'B3')
    assert [line for line in out.splitlines() if line.startswith('B3.') and ' ' not in line] == [
        *('B3.1', 'B3.2', 'B3.3', 'B3.4')
    ]
    losses = [line.rpartition('  ')[2] for line in out.splitlines() if line.startswith('B3.') and ' ' in line]
    assert losses == [
        'stock',
        'harmonic, tc, no hiou',
        'harmonic, tc, hiou, alpha 1.5, gamma 0.0',
        'harmonic, tc, hiou, alpha 1.5, gamma 0.8',
    ]


def test_show_of_test_time_augmentation_trains_without(run):
    out, _ = run('show', 'B2.24')
    stem = 'mask-rcnn_x101-32x8d_fpn_harmonic-1x'
    assert f'python tools/train.py configs/harmonic/coco/{stem}_coco.py' in out
    assert (
        f'python tools/test.py configs/harmonic/coco/{stem}-tta_coco_test-dev.py '
        f'"$(cat work_dirs/{stem}_coco/last_checkpoint)" --tta\n'
    ) in out


def test_show_of_quoted_rows(run):
    out, _ = run('show', 'A1.1', 'A1.2')
    assert 'A1.1\n  quoted only: mmdet has no config of this detector\n' in out
    assert 'A1.2\n  quoted; the nearest stock config is mmdet::yolo/yolov3_d53_8xb8-ms-608-273e_coco.py\n' in out
    assert 'mim download mmdet --config yolov3_d53_8xb8-ms-608-273e_coco' in out
    assert 'train.py' not in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['show', 'A4.9'], "error: no table or row 'A4.9': A4 has the rows A4.1 to A4.8"),
        (['list', 'A2', 'C3'], "error: no table or row 'C3': near ones are A3, B3;"),
        (['list', 'A2', '--paper', 'B'], 'error: paper B has none of A2'),
    ],
)
def test_unknown_rows(run, arguments, message):
    out, status = run(*arguments)
    assert out == ''
    assert status.startswith(message)


def test_it_starts_without_mmdet_and_torch():
    code = f"""
import runpy, sys
sys.argv = ['papers.py', 'list', 'A2']
runpy.run_path({str(TOOL)!r}, run_name='__main__')
print({{'mmdet', 'mmengine', 'torch', 'numpy'}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == 'set()'


def test_a_closed_pipe_is_no_error():
    process = subprocess.Popen(
        [sys.executable, str(TOOL), 'list'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ''
    assert process.wait() == 0

"""tools/benchmark.py and tools/step_time.py from their command lines, on tiny sizes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from balanced_det.benchmark.report import MARKER, PARTS

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture
def tool():
    return load('benchmark')


@pytest.fixture
def run(tool, tmp_path, monkeypatch, capsys):
    """Run the tool with some arguments; returns what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *arguments, '--device', 'cpu', '--out', str(tmp_path)])
        tool.main()
        return capsys.readouterr()

    return run


def test_a_part_is_printed_and_kept(run, tmp_path):
    printed = run('loss', '--quick')
    assert 'loss: round 2 of 2' in printed.err
    assert f'### {PARTS["loss"]}\n\nA smoke run: its numbers say nothing.\n' in printed.out
    kept = json.loads((tmp_path / 'quick' / 'cpu_loss.json').read_text())
    assert kept['complete']
    assert kept['conditions']['command'] == 'python tools/benchmark.py loss --device cpu --quick'
    assert [len(row['seconds']) for row in kept['rows']] == [2] * len(kept['rows'])
    assert run('show', '--quick').out.strip() == printed.out.strip()
    assert 'nothing was measured on cpu' in run('show').out


def test_the_growth_gets_its_figure(run, tmp_path):
    pytest.importorskip('matplotlib')
    run('growth', '--quick', '--rounds', '1')
    assert (tmp_path / 'quick' / 'growth_cpu.png').read_bytes()[:4] == b'\x89PNG'


def test_the_metrics_backends(run):
    pytest.importorskip('faster_coco_eval', reason="pip install -e '.[fast-eval]'")
    assert '| faster_coco_eval | ' in run('evaluation', '--quick', '--rounds', '1').out


def test_missing_extras_are_told_before_anything_is_measured(run, tmp_path, monkeypatch):
    for package in ('matplotlib', 'faster_coco_eval'):
        monkeypatch.setitem(sys.modules, package, None)
    message = r"growth needs matplotlib, evaluation needs faster_coco_eval: pip install -e '\.\[plots,fast-eval\]'"
    with pytest.raises(SystemExit, match=message):
        run('all', '--quick')
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_keeps_what_was_done(tool, run, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        yield dict(group='a', case='b', seconds=[1.0], memory=1.0)
        raise KeyboardInterrupt

    monkeypatch.setitem(tool.MEASURES, 'loss', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run('loss')
    assert 'Interrupted.' in run('show').out
    with pytest.raises(SystemExit, match='error: loss on cpu was interrupted'):
        run('show', '--update')


def test_a_smoke_run_is_not_documented(run, capsys):
    with pytest.raises(SystemExit):
        run('loss', '--quick', '--update')
    assert '--quick measures nothing that could be told' in capsys.readouterr().err


def test_the_page_has_its_markers():
    page = (ROOT / 'docs' / 'performance.md').read_text()
    for device in ('cpu', 'cuda'):
        assert page.index(MARKER.format('begin', device)) < page.index(MARKER.format('end', device))


@pytest.mark.parametrize(
    ('config', 'heads'),
    [
        ('configs/demo/retinanet_r18_fpn_digit-scenes.py', ['bbox_head']),
        ('configs/_base_/models/faster-rcnn_r50_fpn_smooth-l1.py', ['rpn_head', 'roi_head.bbox_head']),
    ],
)
def test_step_time_tells_the_parts_of_each_config(config, heads, monkeypatch, capsys):
    config = str(ROOT / config)
    arguments = [config, config, '--size', '64', '--boxes', '3', '--rounds', '2', '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', ['step_time.py', *arguments])
    load('step_time').main()
    _, head, _, first, second = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split('|')[2:-1]] == [
        *('backbone', 'neck', *heads, 'losses', 'backward', 'optimizer', 'step'),
        'ratio (range)',
    ]
    assert first.endswith('| 1.00 (1.00 to 1.00) |')
    for line in (first, second):
        cells = [cell.strip() for cell in line.split('|')[2:-2]]
        *parts, step = map(float, cells)
        # Medians of two rounds are means, so that the parts add up to the step, up to zeroing gradients and rounding.
        assert 0.7 * step < sum(parts) < step + 0.01

"""Tables, goals and the generated part of the documentation, from made numbers."""

from __future__ import annotations

import pytest

from balanced_det.benchmark.losses import COPY, FUSED, STOCK
from balanced_det.benchmark.report import MARKER, BenchmarkError, Result, read, table, text, update

CONDITIONS = dict(machine='a machine', versions='torch 9', command='python tools/benchmark.py loss')
LOSS = [
    dict(group='10 anchors', case=STOCK, seconds=[0.2, 0.4, 0.2], memory=11.0),
    dict(group='10 anchors', case=FUSED, seconds=[0.02, 0.04, 0.03], memory=1.0),
    dict(group='10 anchors', case=COPY, seconds=[0.02, 0.02, 0.02], memory=1.0),
]
HEADS = [
    dict(group='SSD300', case='stock', seconds=[1.0], syncs=5, cuda_syncs=None),
    dict(group='SSD300', case='iou-balanced', seconds=[1.03], syncs=4, cuda_syncs=None),
    dict(group='SSD512', case='stock', seconds=[1.0], syncs=5, cuda_syncs=None),
    dict(group='SSD512', case='harmonic', seconds=[0.5], syncs=6, cuda_syncs=None),
]
PAGE = f'# By hand\n\n{MARKER.format("begin", "cpu")}\nstale\n{MARKER.format("end", "cpu")}\n\nBy hand.\n'


def result(part, rows, device='cpu', quick=False, complete=True):
    return Result(part, device, CONDITIONS, quick, complete, rows)


def test_table_of_losses():
    assert table(result('loss', LOSS)) == (
        '|  | case | median | ratio (range) | peak memory, in logits |\n'
        '|---|---|---|---|---|\n'
        '| 10 anchors | stock FocalLoss | 200 ms | 1 | 11.00 |\n'
        '|  | IoUBalancedFocalLoss | 30 ms | 0.100 (0.100 to 0.150) | 1.00 |\n'
        '|  | read and write the logits once | 20 ms | 0.100 (0.050 to 0.100) | 1.00 |'
    )


def test_columns_without_values_and_times_are_left_out():
    lines = table(result('heads', HEADS), times=False).splitlines()
    assert lines[0] == '|  | case | ratio (range) | host waits |'
    assert lines[3] == '|  | iou-balanced | 1.030 (1.030 to 1.030) | 4 |'
    assert lines[4] == '| SSD512 | stock | 1 | 5 |'


def test_growth_tells_the_time_of_a_logit_and_what_was_left_out():
    rows = [
        dict(over='anchors', group='10', anchors=10, classes=2, case=STOCK, seconds=[1.0], memory=9.0),
        dict(over='anchors', group='10', anchors=10, classes=2, case=FUSED, seconds=[0.2], memory=1.0),
        dict(over='anchors', group='40', anchors=40, classes=2, case=STOCK, skipped='needs 9 GiB'),
        dict(over='anchors', group='40', anchors=40, classes=2, case=FUSED, seconds=[0.88], memory=1.0),
    ]
    lines = table(result('growth', rows), times=False).splitlines()
    assert lines[3] == '|  | IoUBalancedFocalLoss | 0.200 (0.200 to 0.200) | 1.00 | 1.00 |'
    assert lines[4] == '| 40 | stock FocalLoss | needs 9 GiB |  |  |'
    assert lines[5] == '|  | IoUBalancedFocalLoss |  | 1.10 | 1.00 |'


def test_page_gets_goals_and_tables_between_its_markers(tmp_path):
    page = tmp_path / 'performance.md'
    page.write_text(PAGE)
    results = dict(loss=result('loss', LOSS), heads=result('heads', HEADS))
    update(page, results, 'cpu')
    written = page.read_text()
    assert written.startswith(f'# By hand\n\n{MARKER.format("begin", "cpu")}\n| goal | limit |')
    assert written.endswith(f'{MARKER.format("end", "cpu")}\n\nBy hand.\n')
    for line in (
        '| fused loss: time to the stock FocalLoss | 0.12 | 0.1 | yes |',
        'the partial sums of a GPU | 1.05 | 1 | yes |',
        '| loss step of a dense head, to the stock losses | 1.02 | 1.03 (SSD300, iou-balanced) | no |',
        '| loss step of a head: waits of the host beyond the stock losses | 0 | 1 (SSD512, harmonic) | no |',
        '| training step of RetinaNet, to the stock losses | 1 | not measured | not measured |',
        table(results['loss'], times=False),
        'a machine; torch 9; `python tools/benchmark.py loss`',
    ):
        assert line in written
    assert 'stale' not in written
    assert written.count('a machine') == 1  # one run, two parts
    update(page, results, 'cpu')
    assert page.read_text() == written


def test_limits_are_compared_with_what_was_measured_not_with_its_digits(tmp_path):
    rows = [dict(LOSS[0], seconds=[1.0]), dict(LOSS[1], seconds=[0.12], memory=1.050001)]
    page = tmp_path / 'performance.md'
    page.write_text(PAGE)
    update(page, dict(loss=result('loss', rows)), 'cpu')
    assert '| 0.12 | 0.12 | yes |' in page.read_text()
    assert '| 1.05 | 1.05 | no |' in page.read_text()


@pytest.mark.parametrize(
    ('results', 'message'),
    [
        ({}, 'nothing was measured on cpu'),
        (dict(loss=result('loss', LOSS, quick=True)), 'loss on cpu was a smoke run'),
        (dict(loss=result('loss', LOSS, complete=False)), 'loss on cpu was interrupted'),
    ],
)
def test_what_says_nothing_is_not_documented(tmp_path, results, message):
    page = tmp_path / 'performance.md'
    page.write_text(PAGE)
    with pytest.raises(BenchmarkError, match=message):
        update(page, results, 'cpu')
    assert page.read_text() == PAGE


def test_page_without_markers(tmp_path):
    page = tmp_path / 'performance.md'
    page.write_text(PAGE)
    with pytest.raises(BenchmarkError, match=r'performance\.md lacks the line .*begin of cuda'):
        update(page, dict(loss=result('loss', LOSS, device='cuda')), 'cuda')


def test_results_come_back_as_they_were_written(tmp_path):
    written = result('loss', LOSS, complete=False)
    written.write(tmp_path)
    assert read(tmp_path, 'cpu') == dict(loss=written)
    assert read(tmp_path, 'cuda') == {}
    assert 'Interrupted.' in text(written)
    (tmp_path / 'cpu_loss.json').write_text('{"rows": [')
    with pytest.raises(BenchmarkError, match=r'cpu_loss\.json is broken'):
        read(tmp_path, 'cpu')

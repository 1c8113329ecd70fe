"""Sizes that do not fit are left out with the reason; the figure has what was measured."""

from __future__ import annotations

import pytest
import torch

import iou_balanced  # noqa: F401  registers the loss
from balanced_det.benchmark import growth
from balanced_det.benchmark.losses import FUSED, STOCK

CPU = torch.device('cpu')


def test_rows_of_a_smoke_run():
    rows = list(growth.measure_growth(CPU, rounds=1, quick=True))
    assert [(row['over'], row['anchors'], row['classes']) for row in rows[::2]] == [
        ('anchors', 1000, 80),
        ('anchors', 3000, 80),
        ('classes', 1000, 5),
        ('classes', 1000, 10),
    ]
    assert [row['case'] for row in rows] == 4 * [STOCK, FUSED]
    # A gradient is a buffer by itself; the stock loss has its one-hot target in 64-bit integers, which are two more.
    assert all(row['memory'] > (4 if row['case'] == STOCK else 1) for row in rows)


def test_what_does_not_fit_is_left_out(monkeypatch):
    monkeypatch.setattr(growth, 'free_memory', lambda device: 1000 * 80 * 4 * 30)
    small, large = (
        [row for row in growth.measure_growth(CPU, rounds=1, quick=True) if row['group'] == group]
        for group in ('1,000 x 80', '3,000 x 80')
    )
    assert all('seconds' in row for row in small)
    # The first size told that the stock loss needs eleven times the logits: three times that is above 0.8 of 30.
    assert 'seconds' not in large[0]
    assert large[0]['skipped'].endswith(' GiB; of 0.00894 that are free 0.00715 may be taken')


def test_the_figure_leaves_out_what_was_not_measured():
    pytest.importorskip('matplotlib')
    from balanced_det.benchmark.figures import growth_figure

    common = dict(over='anchors', classes=80, seconds=[0.1, 0.3, 0.2], memory=1.0)
    rows = [
        dict(common, anchors=2**18, case=STOCK, seconds=[0.4]),
        dict(common, anchors=2**18, case=FUSED),
        dict(over='anchors', classes=80, anchors=2**20, case=STOCK, skipped='needs 9 GiB'),
        dict(common, anchors=2**20, case=FUSED, seconds=[0.8]),
    ]
    rows += [dict(row, over='classes') for row in rows[:2]]
    time, _, memory, _ = growth_figure(rows, 'a machine').axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in time.lines}
    assert lines == {
        STOCK: [[2**18, 2.0]],
        FUSED: [[2**18, 1.0], [2**20, 4.0]],
        'in proportion': [[2**18, 1.0], [2**20, 4.0]],
    }
    assert time.get_ylabel() == 'time (fused at 262,144 = 1)'
    assert memory.lines[1].get_ydata().tolist() == [80.0, 320.0]  # MiB: 2**18 * 80 logits of 4 bytes

"""Timing in turns and the peak of what is held, on cases whose answers are known."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from balanced_det.benchmark import measure
from balanced_det.benchmark.measure import choose_device, compare, free_memory, peak_memory, prefixed, ratio

CPU = torch.device('cpu')
N = 250_000  # a float32 buffer of 1 MB


def test_cases_take_turns_and_the_order_alternates():
    calls, told = [], []
    cases = {name: lambda name=name: calls.append(name) for name in 'abc'}
    seconds = compare(cases, 3, prefixed(told.append, 'loss'))
    assert ''.join(calls) == 'cba' + 'abc' + 'cba' + 'abc'
    assert {name: len(values) for name, values in seconds.items()} == dict(a=3, b=3, c=3)
    assert told == ['loss: warmed up', *(f'loss: round {n} of 3' for n in (1, 2, 3))]


def test_seconds_are_wall_seconds_and_the_warm_up_is_not_counted():
    waits = iter((0.3, 0.02, 0.02))
    (seconds,) = compare({'a': lambda: time.sleep(next(waits))}, 2).values()
    assert all(0.02 <= value < 0.3 for value in seconds)


def test_a_block_has_the_same_number_of_calls_for_all_and_seconds_are_those_of_one(monkeypatch):
    calls = []
    monkeypatch.setattr(measure, 'time', SimpleNamespace(perf_counter=lambda: sum(calls)))
    seconds = compare({'slow': lambda: calls.append(20), 'fast': lambda: calls.append(5)}, 2, block=30)
    assert seconds == dict(slow=[20, 20], fast=[5, 5])
    # Once to warm up; 1 and 2 calls of the first case, then 2, 4 and 8 of the other, reach 30; two rounds of 8.
    assert calls == [5, 20] + 3 * [20] + 14 * [5] + 8 * [20] + 16 * [5] + 8 * [20]


def test_a_numbered_gpu_becomes_the_current_one(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, 'set_device', chosen.append)
    assert [str(choose_device(name)) for name in ('cpu', 'cuda', 'cuda:1')] == ['cpu', 'cuda', 'cuda:1']
    assert chosen == [torch.device('cuda', 1)]


def test_ratio_is_taken_within_the_rounds():
    # A machine that is ten times slower in the last round slows both: 2, 3, 4 remain.
    assert ratio([2.0, 3.0, 40.0], [1.0, 1.0, 10.0]) == (3.0, 2.0, 4.0)


def held_together(x):
    y = x + 1
    return y, y + 1


def one_after_the_other(x):
    y = x + 1
    y = y + 1
    return y + 1


def released_before_the_end(x):
    held_together(x)
    return x + 1


@pytest.mark.parametrize(
    ('case', 'buffers'),
    [
        (torch.Tensor.clone, 1),
        (held_together, 2),
        (one_after_the_other, 2),
        (released_before_the_end, 2),
        (lambda x: x.add_(1), 0),
        (lambda x: x.double(), 2),
        (lambda x: x.bfloat16(), 0.5),
    ],
)
def test_peak_memory_in_buffers(case, buffers):
    x = torch.zeros(N)
    # An operation may hold a scalar of a few bytes besides.
    assert peak_memory(lambda: case(x), CPU) / (4 * N) == pytest.approx(buffers, abs=1e-4)


def test_free_memory_is_what_the_system_says():
    with open('/proc/meminfo') as stream:
        total = int(stream.readline().split()[1]) * 1024
    assert 0 < free_memory(CPU) <= total

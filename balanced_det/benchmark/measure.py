"""Time and memory of cases side by side: they take turns, so that whatever slows the machine slows them all."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

Case = Callable[[], object]
Progress = Callable[[str], None]
#: Seconds of calls between two waits for a GPU at least: one call may take longer to launch than to compute.
BLOCK = {'cpu': 0.0, 'cuda': 0.02}


class Ratio(NamedTuple):
    """How many times as long as the base; of the rounds' ratios the median, the smallest and the largest."""

    median: float
    low: float
    high: float


def compare(
    cases: Mapping[str, Case], rounds: int, progress: Progress | None = None, block: float = 0.0
) -> dict[str, list[float]]:
    """Time cases in turn.

    One round warms up and is not counted. Every other round runs backwards: a case that leaves the caches warm for its
    neighbour does not always help the same one.

    Args:
        cases: Name -> what to time.
        rounds: How many rounds are counted.
        progress: Is told which round has ended.
        block: Seconds that are timed at once at least: that many calls, the same number for all cases, as the shortest
            case needs for it. 0: one call.

    Returns:
        Wall seconds of a call of each case, one for each round; on a GPU until it has finished its work.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    calls = 1
    for number in range(rounds + 1):
        for name in list(cases) if number % 2 else reversed(list(cases)):
            elapsed = _wall_seconds(cases[name], calls)
            if number:
                seconds[name].append(elapsed / calls)
        if block and not number:
            calls = _calls_of_a_block(cases.values(), block)
        if progress:
            progress(f'round {number} of {rounds}' if number else 'warmed up')
    return seconds


def choose_device(name: str | None) -> torch.device:
    """The device of a name, a GPU where there is one by default; a numbered GPU becomes torch's current one."""
    device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    if device.type == 'cuda' and device.index is not None:
        torch.cuda.set_device(device)
    return device


def ratio(seconds: Sequence[float], base: Sequence[float]) -> Ratio:
    """Ratios of two cases of one :func:`compare`, each within its round."""
    ratios = [mine / other for mine, other in zip(seconds, base)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def prefixed(progress: Progress | None, prefix: str) -> Progress | None:
    """A progress that says of what it tells."""
    if progress is None:
        return None
    told = progress
    return lambda text: told(f'{prefix}: {text}')


def peak_memory(case: Case, device: torch.device) -> int:
    """Bytes that a case holds at most at one time, beyond what there was when it began.

    Its result counts: it is held until the case has ended. On a CPU the allocations are those that torch's profiler
    sees, which are all of torch's own.

    Args:
        case: What to call, once; it must not release what there was before, which the profiler does not see.
        device: Whose memory.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        case()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = case()
    del result
    held = peak = 0
    for event in _memory_events(profiler):
        held += event['args']['Bytes']
        peak = max(peak, held)
    return peak


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    if device.type == 'cuda':
        with torch.cuda.device(device):
            torch.cuda.empty_cache()  # what torch keeps for later is free
            return torch.cuda.mem_get_info()[0]
    lines = Path('/proc/meminfo').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable:'))


def _memory_events(profiler: profile) -> list[dict]:
    """Allocations and releases in the order of time, from the trace that the profiler exports."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    return sorted((event for event in events if event.get('name') == '[memory]'), key=lambda event: event['ts'])


def _calls_of_a_block(cases: Iterable[Case], block: float) -> int:
    calls = 1
    for case in cases:
        while _wall_seconds(case, calls) < block:
            calls *= 2
    return calls


def _wall_seconds(case: Case, calls: int) -> float:
    _wait()
    start = time.perf_counter()
    for _ in range(calls):
        case()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()

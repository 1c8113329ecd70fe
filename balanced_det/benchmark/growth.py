"""The part ``growth``: time and memory of the focal losses over the number of anchors and of classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmengine.registry import init_default_scope

from balanced_det.benchmark.losses import BALANCED, ETA, FUSED, STOCK, balanced_case, make_problem, stock_case
from balanced_det.benchmark.measure import BLOCK, Progress, compare, free_memory, peak_memory, prefixed

ANCHORS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
CLASSES = (20, 80, 200, 365, 601, 1203)
ANCHORS_OF_CLASSES = 50_000
CLASSES_OF_ANCHORS = 80
NEGATIVES = 400  # anchors for each positive, as in the part ``loss``
FLOAT = 4
#: Float32 logits that a stock loss may need beside the logits, before a smaller size has told.
FIRST_GUESS = 16.0
SPARE = 0.8  # of the free memory is taken at most


def measure_growth(
    device: torch.device, rounds: int = 3, quick: bool = False, progress: Progress | None = None
) -> Iterator[dict]:
    """Rows of the part: anchors, classes, loss, seconds of each round, and peak memory in units of the logits.

    A size that does not fit in the free memory gives a row without ``seconds``, with the reason as ``skipped``.
    """
    init_default_scope('mmdet')
    anchors, classes = ((1000, 3000), (5, 10)) if quick else (ANCHORS, CLASSES)
    for over, sizes in (
        ('anchors', [(number, CLASSES_OF_ANCHORS) for number in anchors]),
        ('classes', [(anchors[0] if quick else ANCHORS_OF_CLASSES, number) for number in classes]),
    ):
        needed = {STOCK: FIRST_GUESS, FUSED: FIRST_GUESS}
        for num_anchors, num_classes in sizes:
            group = f'{num_anchors:,} x {num_classes:,}'
            told = prefixed(progress, group)
            for name, found in _measure_size(num_anchors, num_classes, needed, device, rounds, told).items():
                yield dict(over=over, group=group, anchors=num_anchors, classes=num_classes, case=name, **found)
                needed[name] = found.get('memory', needed[name])


def _measure_size(
    num_anchors: int,
    num_classes: int,
    needed: dict[str, float],
    device: torch.device,
    rounds: int,
    progress: Progress | None,
) -> dict[str, dict]:
    """Loss -> what was found at one size; ``needed`` is the memory of each loss, in units of the logits."""
    logits, free = num_anchors * num_classes * FLOAT, free_memory(device)
    # The random logits are made in steps that hold three of them.
    bytes_of = {name: logits * max(1 + buffers, 3) for name, buffers in needed.items()}
    fitting = [name for name, size in bytes_of.items() if size < SPARE * free]
    found: dict[str, dict] = {name: dict(skipped=_reason(size, free)) for name, size in bytes_of.items()}
    if fitting:
        problem = make_problem(num_anchors, num_classes, num_anchors // NEGATIVES, device)
        makers = {STOCK: lambda: stock_case(problem), FUSED: lambda: balanced_case(problem, dict(BALANCED, eta=ETA))}
        cases = {name: makers[name]() for name in fitting}
        seconds = compare(cases, rounds, progress, BLOCK[device.type])
        for name, case in cases.items():
            found[name] = dict(seconds=seconds[name], memory=peak_memory(case, device) / logits)
    return found


def _reason(needed: float, free: float) -> str:
    return (
        f'needs {needed / 2**30:.3g} GiB; of {free / 2**30:.3g} that are free {SPARE * free / 2**30:.3g} may be taken'
    )

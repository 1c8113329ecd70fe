"""The part ``loss``: forward and backward of classification losses on the same logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses.pisa_loss import carl_loss, isr_p
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.registry import init_default_scope
from torch import Tensor

from balanced_det.benchmark.measure import BLOCK, Case, Progress, compare, peak_memory

ETA = 1.5
FOCAL: dict[str, Any] = dict(use_sigmoid=True, gamma=2.0, alpha=0.25)
BALANCED = dict(FOCAL, type='IoUBalancedFocalLoss')
STOCK, AUTHORS, COPY = 'stock FocalLoss', "the authors' formulation", 'read and write the logits once'
FUSED, PLAIN = 'IoUBalancedFocalLoss', 'IoUBalancedFocalLoss, fused=False'
HALF = 'IoUBalancedFocalLoss, bfloat16'
BINS = 17  # GFL: reg_max 16
IMAGE = dict(num_anchors=120_000, num_positives=300)  # a RetinaNet's, of 800 pixels
NUM_IMAGES = {'cpu': 1, 'cuda': 8}


@dataclass(frozen=True)
class Problem:
    """Anchors of a batch as a head hands them to its losses; N anchors, C classes, P positives.

    Attributes:
        logits: (N, C), requires a gradient.
        labels: (N,), C is the background.
        iou: (N,), in [0, 1].
        weight: (N,), 0 for the ignored anchors, which are negatives.
        num_positives: P, the divisor.
        deltas: (N, 4), the regression output; requires a gradient.
        targets: (N, 4), encoded as ``deltas``.
        anchors: (N, 4), xyxy, pixels.
        boxes: (P,), the ground-truth box of each positive.
        sides: (4 P, 17), GFL's distribution of each side of a positive; requires a gradient.
        distances: (4 P,), its target, in [0, 16).
    """

    logits: Tensor
    labels: Tensor
    iou: Tensor
    weight: Tensor
    num_positives: int
    deltas: Tensor
    targets: Tensor
    anchors: Tensor
    boxes: Tensor
    sides: Tensor
    distances: Tensor


def make_problem(
    num_anchors: int = 120_000,
    num_classes: int = 80,
    num_positives: int = 300,
    device: torch.device | str = 'cpu',
    seed: int = 0,
) -> Problem:
    """Random anchors, with scores as a RetinaNet has them at the start: logits of mean -4, 5 % ignored."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator)
    order = torch.randperm(num_anchors, generator=generator)
    positives, ignored = order[:num_positives].sort().values, order[num_positives:][: num_anchors // 20]
    num_boxes = max(1, num_positives // 15)
    boxes = torch.randint(0, num_boxes, (num_positives,), generator=generator)
    labels = torch.full((num_anchors,), num_classes)
    labels[positives] = torch.randint(0, num_classes, (num_boxes,), generator=generator)[boxes]
    weight = torch.ones(num_anchors)
    weight[ignored] = 0
    corner = torch.rand(num_anchors, 2, generator=generator) * 800
    tensors = dict(
        labels=labels,
        iou=torch.rand(num_anchors, generator=generator),
        weight=weight,
        targets=normal(num_anchors, 4) * 0.1,
        anchors=torch.cat([corner, corner + 64], dim=1),
        boxes=boxes,
        distances=torch.rand(4 * num_positives, generator=generator) * (BINS - 1),
    )
    outputs = dict(
        logits=normal(num_anchors, num_classes) - 4,
        deltas=normal(num_anchors, 4) * 0.1,
        sides=normal(4 * num_positives, BINS),
    )
    return Problem(
        num_positives=num_positives,
        **{name: tensor.to(device) for name, tensor in tensors.items()},
        **{name: tensor.to(device).requires_grad_() for name, tensor in outputs.items()},
    )


def loss_cases(problem: Problem) -> dict[str, Case]:
    """Forward and backward of each loss, on a problem; the first is the base of the ratios."""
    balanced = {
        FUSED: dict(BALANCED, eta=ETA),
        PLAIN: dict(BALANCED, eta=ETA, fused=False),
        'eta=0': dict(BALANCED, eta=0.0),
        'eta=0, fused=False': dict(BALANCED, eta=0.0, fused=False),
    }
    return {
        STOCK: stock_case(problem),
        AUTHORS: step(lambda: authors_focal_loss(problem), problem.logits),
        **{name: balanced_case(problem, block) for name, block in balanced.items()},
        **_half_cases(problem),
        'PISA: ISR-P, FocalLoss, CARL': _pisa_case(problem),
        'GFL: QFL, DFL': _gfl_case(problem),
        COPY: problem.logits.detach().clone,
    }


def step(loss: Callable[[], Tensor], *inputs: Tensor) -> Case:
    """Forward and backward; gives the gradients."""
    return lambda: torch.autograd.grad(loss(), inputs)


def stock_case(problem: Problem) -> Case:
    """The stock focal loss."""
    module = MODELS.build(dict(FOCAL, type='FocalLoss'))
    return step(
        lambda: module(problem.logits, problem.labels, problem.weight, avg_factor=problem.num_positives),
        problem.logits,
    )


def balanced_case(problem: Problem, block: dict) -> Case:
    """An IoU-balanced focal loss, by its config block."""
    module = MODELS.build(block)
    target = (problem.labels, problem.iou)
    return step(
        lambda: module(problem.logits, target, problem.weight, avg_factor=problem.num_positives), problem.logits
    )


def authors_focal_loss(problem: Problem, eta: float = ETA) -> Tensor:
    """The IoU-balanced focal loss as its equation reads: a weight for each entry of the loss map.

    The map is that of the one-hot targets; w is 1 at the negatives and Eq. 4 at the positive entries, over which both
    of its sums run.
    """
    logits, gamma, alpha = problem.logits, FOCAL['gamma'], FOCAL['alpha']
    positive = F.one_hot(problem.labels, logits.size(1) + 1)[:, :-1].to(logits.dtype)
    prob = logits.sigmoid()
    wrong = positive * (1 - prob) + (1 - positive) * prob
    focus = (positive * alpha + (1 - positive) * (1 - alpha)) * wrong.pow(gamma)
    loss = focus * F.binary_cross_entropy_with_logits(logits, positive, reduction='none') * problem.weight[:, None]
    with torch.no_grad():
        powered = positive * problem.iou[:, None].pow(eta)
        balance = powered * ((positive * loss).sum() / (powered * loss).sum()) + (1 - positive)
    return (balance * loss).sum() / problem.num_positives


def _half_cases(problem: Problem) -> dict[str, Case]:
    """On a GPU: logits as a head under autocast has them. There is no stock loss: mmcv has no kernel for bfloat16."""
    if problem.logits.device.type == 'cpu':
        return {}
    half = replace(problem, logits=problem.logits.detach().bfloat16().requires_grad_())
    return {
        HALF: balanced_case(half, dict(BALANCED, eta=ETA)),
        'read and write the logits once, bfloat16': half.logits.detach().clone,
    }


def _pisa_case(problem: Problem) -> Case:
    """PISA's weights and losses with the values of mmdet's config; without the smooth L1, which all detectors have."""
    cls, bbox = MODELS.build(dict(FOCAL, type='FocalLoss')), MODELS.build(dict(type='SmoothL1Loss', beta=0.11))
    coder = TASK_UTILS.build(dict(type='DeltaXYWHBBoxCoder'))
    sampled = [SimpleNamespace(pos_assigned_gt_inds=problem.boxes)]
    avg_factor, num_classes = problem.num_positives, problem.logits.size(1)

    def loss() -> Tensor:
        targets = problem.labels, problem.weight.clone(), problem.targets, None  # its weights are written in place
        with torch.no_grad():
            labels, weight, deltas, _ = isr_p(
                problem.logits,
                problem.deltas,
                targets,
                problem.anchors,
                sampled,
                cls,
                coder,
                k=2.0,
                bias=0.0,
                num_class=num_classes,
            )
        carl = carl_loss(
            problem.logits,
            labels,
            problem.deltas,
            deltas,
            bbox,
            k=1.0,
            bias=0.2,
            avg_factor=avg_factor,
            sigmoid=True,
            num_class=num_classes,
        )
        return cls(problem.logits, labels, weight, avg_factor=avg_factor) + carl['loss_carl'].sum()

    return step(loss, problem.logits, problem.deltas)


def _gfl_case(problem: Problem) -> Case:
    quality = MODELS.build(dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0))
    distribution = MODELS.build(dict(type='DistributionFocalLoss', loss_weight=0.25))
    target, avg_factor = (problem.labels, problem.iou), problem.num_positives
    return step(
        lambda: (
            quality(problem.logits, target, problem.weight, avg_factor=avg_factor)
            + distribution(problem.sides, problem.distances, avg_factor=4.0 * avg_factor)
        ),
        problem.logits,
        problem.sides,
    )


def measure_losses(
    device: torch.device, rounds: int = 15, quick: bool = False, progress: Progress | None = None
) -> Iterator[dict]:
    """Rows of the part: case, seconds of each round, and peak memory in units of the float32 logits."""
    init_default_scope('mmdet')
    size = {name: number * NUM_IMAGES[device.type] for name, number in IMAGE.items()}
    if quick:
        size = dict(num_anchors=2000, num_classes=8, num_positives=20)
    problem = make_problem(**size, device=device)
    cases = loss_cases(problem)
    seconds = compare(cases, rounds, progress, BLOCK[device.type])
    logits = problem.logits.numel() * problem.logits.element_size()
    anchors, classes = problem.logits.shape
    for name, case in cases.items():
        memory = peak_memory(case, device) / logits
        yield dict(
            group=f'{anchors} anchors, {classes} classes, {problem.num_positives} positives',
            case=name,
            seconds=seconds[name],
            memory=memory,
        )

"""The part ``heads``: the loss step of a head, from its random outputs to their gradients.

Matching, losses and backward; no network. Of the RoI head, whose sampling draws at random, the sampled RoIs are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from balanced_det.benchmark.detectors import LOSSES, detector, random_batch
from balanced_det.benchmark.measure import BLOCK, Case, Progress, compare, prefixed
from balanced_det.benchmark.syncs import count_cuda_syncs, count_syncs
from balanced_det.fused_focal import chunked

NUM_BOXES = 10
#: The fused pass of a CPU, which looks at where the positives are; on a GPU kernels take its place that do not.
ONLY_ON_CPU = chunked.__file__


@dataclass(frozen=True)
class HeadCase:
    """A head and its inputs.

    Attributes:
        name: A detector of :mod:`balanced_det.benchmark.detectors`.
        size: Side of the images in pixels.
        repeat: How many times the rounds it takes; many for a short step.
    """

    name: str
    size: int
    repeat: int


HEADS = (
    HeadCase('RetinaNet', 320, 4),
    HeadCase('RetinaNet', 800, 1),
    HeadCase('FoveaBox', 800, 4),
    HeadCase('SSD300', 300, 10),
    HeadCase('SSD512', 512, 10),
    HeadCase('Faster R-CNN', 800, 20),
)
QUICK = (HeadCase('RetinaNet', 64, 1), HeadCase('FoveaBox', 64, 1), HeadCase('Faster R-CNN', 64, 1))


def measure_heads(
    device: torch.device, rounds: int = 15, quick: bool = False, progress: Progress | None = None
) -> Iterator[dict]:
    """Rows of the part: head, losses, seconds of each round, and how often a step makes the host wait."""
    num_images = 1 if quick else 2
    for case in QUICK if quick else HEADS:
        steps = {losses: head_step(case, losses, num_images, device) for losses in LOSSES}
        told = prefixed(progress, f'{case.name}, {case.size} px')
        seconds = compare(steps, rounds * case.repeat, told, BLOCK[device.type])
        for losses, step in steps.items():
            waits = count_syncs(step, ignored=ONLY_ON_CPU if device.type == 'cpu' else None)
            yield dict(
                group=f'{case.name}, {case.size} px, {num_images} image{"s" * (num_images > 1)}',
                case=losses,
                seconds=seconds[losses],
                syncs=sum(waits.values()),
                waits=dict(waits),
                cuda_syncs=count_cuda_syncs(step) if device.type == 'cuda' else None,
            )


def head_step(case: HeadCase, losses: str, num_images: int, device: torch.device) -> Case:
    """The loss step of a head; outputs and boxes are the same for all losses.

    Args:
        case: The head.
        losses: 'stock' or a method.
        num_images: Images of the batch.
        device: Where it runs.

    Returns:
        The step; it gives the gradients of the head's outputs.
    """
    cfg = detector(case.name, losses).model
    return (_roi_step if 'roi_head' in cfg else _dense_step)(cfg, case.size, num_images, device)


def output_shapes(cfg: Any, size: int, num_images: int) -> list[list[torch.Size]]:
    """Shapes of a dense head's outputs, scores and boxes of each level: those of the network without its values.

    Args:
        cfg: The model of a one-stage detector.
        size: Side of the images in pixels.
        num_images: Images of the batch.
    """
    with torch.device('meta'):
        model = MODELS.build(cfg).to('meta')  # not all layers build on the device of a context
        outputs = model.bbox_head(model.extract_feat(torch.empty(num_images, 3, size, size)))
    return [[output.shape for output in maps] for maps in outputs]


def _dense_step(cfg: Any, size: int, num_images: int, device: torch.device) -> Case:
    block = dict(cfg.bbox_head, train_cfg=cfg.train_cfg, test_cfg=cfg.test_cfg)
    head = MODELS.build(block).to(device)
    gts, metas = _ground_truth(size, num_images, head.num_classes, device)
    outputs = [[_random(shape, device) for shape in shapes] for shapes in output_shapes(cfg, size, num_images)]
    for scores in outputs[0]:
        scores.sub_(4.0)  # as at the start of a training with the focal loss
    leaves = [output.requires_grad_() for maps in outputs for output in maps]

    def step() -> object:
        return torch.autograd.grad(_total(head.loss_by_feat(*outputs, gts, metas)), leaves)

    return step


def _roi_step(cfg: Any, size: int, num_images: int, device: torch.device) -> Case:
    head = MODELS.build(cfg.roi_head.bbox_head).to(device)
    train_cfg = cfg.train_cfg.rcnn
    gts, _ = _ground_truth(size, num_images, head.num_classes, device)
    torch.manual_seed(0)
    sampled = [_sampled_rois(train_cfg, gt, size) for gt in gts]
    rois = bbox2roi([result.priors for result in sampled])
    scores = _random((len(rois), head.num_classes + 1), device).requires_grad_()
    deltas = _random((len(rois), 4 * head.num_classes), device).requires_grad_()

    def step() -> object:
        losses = head.loss_and_target(scores, deltas, rois, sampled, train_cfg)['loss_bbox']
        return torch.autograd.grad(_total(losses), [scores, deltas])

    return step


def _sampled_rois(train_cfg: Any, gt: InstanceData, size: int) -> Any:
    """512 RoIs as the detector samples them, from 1000 noisy copies of the boxes and 1000 boxes anywhere."""
    noisy = gt.bboxes[torch.randint(len(gt), (1000,))] + size / 40 * torch.randn(1000, 4).to(gt.bboxes)
    corner = torch.rand(1000, 2) * size
    anywhere = torch.cat([corner, corner + torch.rand(1000, 2) * size], dim=1).to(gt.bboxes)
    proposals = InstanceData(priors=torch.cat([noisy, anywhere]).clamp(0, size))
    assigned = TASK_UTILS.build(train_cfg.assigner).assign(proposals, gt)
    sampler = TASK_UTILS.build(train_cfg.sampler, default_args=dict(context=None))
    return sampler.sample(assigned, proposals, gt)


def _ground_truth(
    size: int, num_images: int, num_classes: int, device: torch.device
) -> tuple[list[InstanceData], list[dict]]:
    samples = random_batch(size, num_images, NUM_BOXES, num_classes)['data_samples']
    metas = [dict(sample.metainfo, pad_shape=(size, size)) for sample in samples]
    return [sample.gt_instances.to(device) for sample in samples], metas


def _random(shape: Any, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def _total(losses: dict[str, Any]) -> Tensor:
    """The sum of what is a loss, as mmengine adds it up: a tensor, or a list of one for each level or image."""
    values = [value if isinstance(value, list) else [value] for name, value in losses.items() if 'loss' in name]
    return torch.stack([part.sum() for parts in values for part in parts]).sum()

"""The part ``steps``: whole training steps of one detector with the losses of each method."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from balanced_det.benchmark.detectors import LOSSES, detector, random_batch, without_weights
from balanced_det.benchmark.measure import BLOCK, Progress, compare, prefixed


class Step:
    """One training step of a detector, on random weights and data; nothing is downloaded.

    Args:
        cfg: Its config.
        size: Side of the images in pixels.
        batch_size: Images in a step.
        boxes: Boxes in an image.
        device: Where it runs.
    """

    def __init__(self, cfg: Config, size: int, batch_size: int, boxes: int, device: torch.device) -> None:
        init_default_scope('mmdet')
        torch.manual_seed(0)  # the same weights whatever the losses
        self.model = MODELS.build(without_weights(cfg).model)
        with _quiet():
            self.model.init_weights()
        self.model.to(device).train()
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)
        head = getattr(self.model, 'roi_head', self.model).bbox_head
        if isinstance(head, nn.ModuleList):
            raise ValueError(
                f'{type(self.model).__name__} has several bbox_heads: name a config of a detector with one'
            )
        self.data = random_batch(size, batch_size, boxes, head.num_classes)

    def forward(self) -> Tensor:
        """The sum of the losses."""
        data = self.model.data_preprocessor(self.data, True)
        losses = self.model.loss(data['inputs'], data['data_samples'])
        return self.model.parse_losses(losses)[0]

    def run(self) -> Tensor:
        """Forward, loss, backward, update; gives the loss."""
        torch.manual_seed(0)  # a two-stage detector samples the same proposals
        self.optimizer.zero_grad()
        loss = self.forward()
        self.backward(loss)
        self.update()
        return loss.detach()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        loss.backward()

    def update(self) -> None:
        """Change the weights."""
        self.optimizer.step()


@dataclass(frozen=True)
class StepCase:
    """A detector and its batch.

    Attributes:
        name: A detector of :mod:`balanced_det.benchmark.detectors`.
        size: Side of the images in pixels.
        batch_size: Images in a step.
    """

    name: str
    size: int
    batch_size: int


STEPS = {
    'cpu': (StepCase('RetinaNet', 320, 2), StepCase('SSD300', 300, 2), StepCase('Faster R-CNN', 320, 2)),
    'cuda': (StepCase('RetinaNet', 800, 8), StepCase('SSD300', 300, 32), StepCase('Faster R-CNN', 800, 8)),
}
QUICK = (StepCase('Faster R-CNN', 64, 1),)


def measure_steps(
    device: torch.device, rounds: int = 15, quick: bool = False, progress: Progress | None = None
) -> Iterator[dict]:
    """Rows of the part: detector, losses, seconds of each round."""
    for case in QUICK if quick else STEPS[device.type]:
        steps = {
            losses: Step(detector(case.name, losses), case.size, case.batch_size, 10, device).run for losses in LOSSES
        }
        seconds = compare(steps, rounds, prefixed(progress, case.name), BLOCK[device.type])
        for losses in steps:
            group = f'{case.name}, {case.size} px, {case.batch_size} image{"s" * (case.batch_size > 1)}'
            yield dict(group=group, case=losses, seconds=seconds[losses])


@contextmanager
def _quiet() -> Iterator[None]:
    """Mmengine tells of each parameter how it was initialised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)

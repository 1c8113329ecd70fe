"""What a head hands a loss: the samples of one batch, each matched to a ground-truth box or to the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from mmdet.models.task_modules.coders.base_bbox_coder import BaseBBoxCoder
from torch import Tensor

from balanced_det.boxes import decoded_iou


@dataclass
class MatchedSamples:
    """Samples with predictions and targets, in mmdet's terms.

    Each tensor begins with the same leading shape ``(...,)``: (n,) for a flat set, (images, n) for one level of a
    batch. C is the number of score columns.

    Attributes:
        cls_score: (..., C), logits.
        bbox_pred: (..., 4), the raw regression output, of the sample's class where there is one for each.
        priors: (..., 4), anchors or RoIs, xyxy, absolute pixels.
        labels: (...,), class index; the number of classes is the background.
        label_weights: (...,), 0 for a sample that does not count.
        bbox_targets: (..., 4), encoded, or absolute boxes for a head with ``reg_decoded_bbox``.
        bbox_weights: (..., 4), 0 for a sample without a target.
        cls_avg_factor: The host's divisor of the classification loss, of the whole batch.
        bbox_avg_factor: The host's divisor of the localisation loss, of the whole batch.
    """

    cls_score: Tensor
    bbox_pred: Tensor
    priors: Tensor
    labels: Tensor
    label_weights: Tensor
    bbox_targets: Tensor
    bbox_weights: Tensor
    cls_avg_factor: float
    bbox_avg_factor: float

    def flatten(self) -> MatchedSamples:
        """Samples of all images in one row; leading shape (images, n) -> (images * n,)."""
        return self._map(lambda tensor: tensor.flatten(0, 1))

    def unsqueeze(self) -> MatchedSamples:
        """A flat set as one level of one image; leading shape (n,) -> (1, n)."""
        return self._map(lambda tensor: tensor.unsqueeze(0))

    def unbind(self) -> list[MatchedSamples]:
        """Samples of each image apart; leading shape (images, n) -> images times (n,)."""
        return [self.select(torch.tensor(i)) for i in range(len(self.labels))]

    def positives(self, num_classes: int) -> Tensor:
        """Indices of the positive samples of a flat set; shape (P,)."""
        return ((self.labels >= 0) & (self.labels < num_classes)).nonzero().squeeze(1)

    def select(self, inds: Tensor) -> MatchedSamples:
        """The samples at these indices of a flat set."""
        return self._map(lambda tensor: tensor[inds])

    def iou(self, coder: BaseBBoxCoder, *, decoded: bool) -> Tensor:
        """IoU of the regressed boxes with their targets; for a flat set of positives.

        Args:
            coder: The head's ``bbox_coder``.
            decoded: The head's ``reg_decoded_bbox``.

        Returns:
            Shape (n,), in [0, 1], NaN where a target or a prediction is not finite; a constant.
        """
        return decoded_iou(coder, self.priors, self.bbox_pred, self.bbox_targets, decoded=decoded)

    def _map(self, function: Callable[[Tensor], Tensor]) -> MatchedSamples:
        tensors: dict[str, Any] = {name: function(getattr(self, name)) for name in TENSORS}
        return replace(self, **tensors)


TENSORS = tuple(field.name for field in fields(MatchedSamples) if field.type == 'Tensor')


def group_samples(levels: Sequence[MatchedSamples], scope: str) -> list[MatchedSamples]:
    """Flat sets of samples over which a loss normalises.

    Args:
        levels: One set for each level of a batch, leading shape (images, n).
        scope: 'batch' (one set), 'level' or 'image' (a set each).

    Returns:
        Flat sets; together they hold each sample once.
    """
    if scope == 'level':
        return [level.flatten() for level in levels]
    tensors: dict[str, Any] = {name: torch.cat([getattr(level, name) for level in levels], dim=1) for name in TENSORS}
    batch = replace(levels[0], **tensors)
    return [batch.flatten()] if scope == 'batch' else batch.unbind()

"""What a head hands a loss: the samples of one batch, each matched to a ground-truth box or to the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from mmdet.utils import reduce_mean
from torch import Tensor


@dataclass
class MatchedSamples:
    """Samples with predictions and targets, in mmdet's terms.

    Each tensor begins with the same leading shape ``(...,)``: (n,) for a flat set, (images, n) for one level of a
    batch. C is the number of score columns.

    Attributes:
        cls_score: (..., C), logits.
        bbox_pred: (..., 4), the raw regression output, of the sample's class where there is one for each.
        priors: (..., 4), anchors or RoIs, xyxy, absolute pixels; or (..., 2), points.
        labels: (...,), class index; the number of classes is the background.
        label_weights: (...,), 0 for a sample that does not count.
        bbox_targets: (..., 4), encoded as ``bbox_pred``, or absolute boxes for a head with ``reg_decoded_bbox``.
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

    def unbind(self) -> list[MatchedSamples]:
        """Samples of each image apart; leading shape (images, n) -> images times (n,)."""
        return [self.select(torch.tensor(i)) for i in range(len(self.labels))]

    def positives(self, num_classes: int) -> Tensor:
        """Indices of the positive samples of a flat set; shape (P,)."""
        return ((self.labels >= 0) & (self.labels < num_classes)).nonzero().squeeze(1)

    def select(self, inds: Tensor) -> MatchedSamples:
        """The samples at these indices of a flat set."""
        return self._map(lambda tensor: tensor[inds])

    def float(self) -> MatchedSamples:
        """Half precision as float32; other types stay."""
        return self._map(lambda tensor: tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor)

    def with_mean_avg_factors(self) -> MatchedSamples:
        """The same samples; both divisors are their means over all processes, which all have to call this.

        With them the losses are those of one batch over all GPUs, see docs/multi_gpu.md.
        """
        factors = self.labels.new_tensor([self.cls_avg_factor, self.bbox_avg_factor], dtype=torch.float64)
        cls_avg_factor, bbox_avg_factor = reduce_mean(factors).tolist()
        return replace(self, cls_avg_factor=cls_avg_factor, bbox_avg_factor=bbox_avg_factor)

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
    batch = concatenate_samples(levels, dim=1)
    return [batch.flatten()] if scope == 'batch' else batch.unbind()


def concatenate_samples(sets: Sequence[MatchedSamples], dim: int = 0) -> MatchedSamples:
    """One set of all samples of several; ``dim`` is the dimension of the leading shape along which they follow."""
    tensors: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in sets], dim=dim) for name in TENSORS}
    return replace(sets[0], **tensors)

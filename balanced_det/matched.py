"""What a head hands a loss: the samples of one batch, each matched to a ground-truth box or to the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from mmdet.utils import reduce_mean
from torch import Tensor

from balanced_det.blocks import concatenated, positive_inds, take


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
        columns = zip(*(getattr(self, name).unbind() for name in TENSORS))
        return [replace(self, **dict(zip(TENSORS, image))) for image in columns]

    def select(self, inds: Tensor) -> MatchedSamples:
        """The samples at these indices of a flat set."""
        return self._map(lambda tensor: tensor[inds])

    def float(self) -> MatchedSamples:
        """Half precision as float32; other types stay."""
        return self._map(lambda tensor: tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor)

    def zero_unless(self, keep: Tensor) -> MatchedSamples:
        """A flat set with zeros for the predictions and targets of the samples where ``keep``, (n,), is False."""

        def kept(tensor: Tensor) -> Tensor:
            return tensor.where(keep[:, None], 0)

        return replace(
            self,
            cls_score=kept(self.cls_score),
            bbox_pred=kept(self.bbox_pred),
            bbox_targets=kept(self.bbox_targets),
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> MatchedSamples:
        tensors: dict[str, Any] = {name: function(getattr(self, name)) for name in TENSORS}
        return replace(self, **tensors)


TENSORS = tuple(field.name for field in fields(MatchedSamples) if field.type == 'Tensor')


@dataclass
class SampleGroup:
    """Samples over which a loss normalises: flat blocks that follow one another, as levels do; not concatenated.

    Attributes:
        blocks: The samples; their divisors are the same.
        num_classes: Number of classes, the label of the background.
        num_pos: How many samples are positive, where that is known without asking the device.
    """

    blocks: list[MatchedSamples]
    num_classes: int
    num_pos: int | None = None

    @property
    def cls_scores(self) -> list[Tensor]:
        """Logits of each block, (n_k, C)."""
        return [block.cls_score for block in self.blocks]

    @cached_property
    def labels(self) -> Tensor:
        """Labels of all samples, (n,)."""
        return concatenated([block.labels for block in self.blocks])

    @cached_property
    def label_weights(self) -> Tensor:
        """Weights of all samples, (n,)."""
        return concatenated([block.label_weights for block in self.blocks])

    @cached_property
    def pos_inds(self) -> Tensor:
        """Indices of the positive samples, ascending, (P,)."""
        return positive_inds(self.labels, self.num_classes, self.num_pos)

    @cached_property
    def positives(self) -> MatchedSamples:
        """The positive samples, a flat set, with their gradient."""
        tensors: dict[str, Any] = {
            name: take([getattr(block, name) for block in self.blocks], self.pos_inds) for name in TENSORS
        }
        return replace(self.blocks[0], **tensors)

    @property
    def cls_avg_factor(self) -> float:
        """Divisor of the classification loss."""
        return self.blocks[0].cls_avg_factor

    @property
    def bbox_avg_factor(self) -> float:
        """Divisor of the localisation loss."""
        return self.blocks[0].bbox_avg_factor

    def with_mean_avg_factors(self) -> SampleGroup:
        """The same samples; both divisors are their means over all processes, which all have to call this.

        With them the losses are those of one batch over all GPUs, see docs/multi_gpu.md.
        """
        factors = self.labels.new_tensor([self.cls_avg_factor, self.bbox_avg_factor], dtype=torch.float64)
        cls, bbox = reduce_mean(factors).tolist()
        return replace(self, blocks=[replace(block, cls_avg_factor=cls, bbox_avg_factor=bbox) for block in self.blocks])


def group_samples(
    levels: Sequence[MatchedSamples],
    scope: str,
    num_classes: int,
    *,
    num_pos: int | None = None,
    num_pos_of_images: Sequence[int] | None = None,
) -> list[SampleGroup]:
    """Sets of samples over which a loss normalises; together they hold each sample once.

    Args:
        levels: One set for each level of a batch, leading shape (images, n).
        scope: 'batch' (one group), 'level' or 'image' (a group each).
        num_classes: Number of classes, the label of the background.
        num_pos: How many samples are positive, where that is known.
        num_pos_of_images: How many of each image, where that is known.

    Returns:
        Groups; their blocks are flat, and belong to one level each.
    """
    if scope == 'level':
        return [SampleGroup([level.flatten()], num_classes) for level in levels]
    if scope == 'batch':
        total = num_pos if num_pos_of_images is None else sum(num_pos_of_images)
        return [SampleGroup([level.flatten() for level in levels], num_classes, total)]
    images = list(zip(*(level.unbind() for level in levels)))
    counts: Sequence[int | None] = num_pos_of_images or [None] * len(images)
    return [SampleGroup(list(blocks), num_classes, count) for blocks, count in zip(images, counts)]


def merge_groups(groups: Sequence[SampleGroup]) -> SampleGroup:
    """One group of the samples of several, in one block: for few samples, as mining leaves them."""
    blocks = [block for group in groups for block in group.blocks]
    tensors: dict[str, Any] = {name: concatenated([getattr(block, name) for block in blocks]) for name in TENSORS}
    counts = [group.num_pos for group in groups if group.num_pos is not None]
    num_pos = sum(counts) if len(counts) == len(groups) else None
    return SampleGroup([replace(blocks[0], **tensors)], groups[0].num_classes, num_pos)

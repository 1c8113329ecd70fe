"""The seam of SSD: the samples of each image, hard negatives mined, and loss blocks that the stock head lacks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from balanced_det.blocks import positive_inds
from balanced_det.heads.anchor import AnchorLossMixin
from balanced_det.heads.checks import (
    LossMismatchError,
    check_decoded_boxes,
    check_iou_is_handed_over,
    check_num_levels,
    check_regression_targets,
    check_softmax,
)
from balanced_det.matched import MatchedSamples, SampleGroup, merge_groups


@MODELS.register_module()
class ConfigurableSSDHead(SSDHead):
    """``SSDHead`` with its losses as blocks of the config, as mmdet's other heads have them.

    The stock head computes fixed losses, takes no blocks, and cannot validate for want of a ``loss_cls``. The negatives
    are mined by the stock ranking, whatever ``loss_cls`` is.

    Args:
        *args: As ``SSDHead``.
        loss_cls: A softmax loss; None: cross-entropy, as the stock head.
        loss_bbox: None: smooth L1 with ``train_cfg.smoothl1_beta``, as the stock head. A block has a beta of its own.
        **kwargs: As ``SSDHead``.

    Raises:
        LossMismatchError: A loss block does not fit the head.
        ValueError: ``in_channels`` and the anchors do not have as many levels.
    """

    def __init__(self, *args: Any, loss_cls: dict | None = None, loss_bbox: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.in_channels) != self.prior_generator.num_levels:
            raise ValueError(
                f'{type(self).__name__}: in_channels has {len(self.in_channels)} levels, anchor_generator.strides '
                f'{self.prior_generator.num_levels}: give one of each for every level'
            )
        beta = (self.train_cfg or {}).get('smoothl1_beta', 1.0)
        self.loss_cls = MODELS.build(loss_cls or dict(type='CrossEntropyLoss', use_sigmoid=False))
        self.loss_bbox = MODELS.build(loss_bbox or dict(type='SmoothL1Loss', beta=beta))
        self.check_losses()

    def check_losses(self) -> None:
        """The losses must be a softmax loss of the labels and one of what the head regresses."""
        check_softmax(self, 'CrossEntropyLoss')
        check_iou_is_handed_over(self)
        check_decoded_boxes(self)
        check_regression_targets(self)

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """As ``SSDHead.forward``, which would pass over maps that it has no level for."""
        check_num_levels(self, feats, len(self.in_channels))
        return super().forward(feats)

    def loss_by_feat_single(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Losses of one image; arguments as ``SSDHead.loss_by_feat_single``."""
        group = self.mined_samples(*args, **kwargs)
        (samples,), positives = group.blocks, group.positives
        regressed = positives.bbox_pred
        if self.reg_decoded_bbox:
            regressed = get_box_tensor(self.bbox_coder.decode(positives.priors, regressed))
        loss_cls = self.loss_cls(
            samples.cls_score, samples.labels, samples.label_weights, avg_factor=samples.cls_avg_factor
        )
        loss_bbox = self.loss_bbox(
            regressed, positives.bbox_targets, positives.bbox_weights, avg_factor=samples.bbox_avg_factor
        )
        return loss_cls, loss_bbox

    def mined_samples(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchor: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        avg_factor: float,
    ) -> SampleGroup:
        """Positives and hard negatives of one image; arguments as ``SSDHead.loss_by_feat_single``."""
        samples = MatchedSamples(
            cls_score=cls_score,
            bbox_pred=bbox_pred,
            priors=anchor,
            labels=labels,
            label_weights=label_weights,
            bbox_targets=bbox_targets,
            bbox_weights=bbox_weights,
            cls_avg_factor=avg_factor,
            bbox_avg_factor=avg_factor,
        )
        return mine_hard_negatives(samples, self.num_classes, self.train_cfg['neg_pos_ratio'])


class SSDLossMixin(AnchorLossMixin):
    """Makes a :class:`ConfigurableSSDHead` hand its mined samples to :meth:`loss_by_matched`.

    Those are the positives and, of each image, the ``train_cfg.neg_pos_ratio`` times as many negatives of the largest
    cross-entropy: the ranking of the stock head, whatever ``loss_cls`` is. What a loss does to positives therefore
    comes before the mining and does not change it.
    """

    SEAM: ClassVar = dict(loss_by_feat=(SSDHead,), loss_by_feat_single=(ConfigurableSSDHead,))

    mined_samples: Any  # the host's

    def check_losses(self) -> None:
        """The losses must be softmax losses, over an image or the batch."""
        check_softmax(self, 'IoUBalancedCrossEntropyLoss')
        if self.scope == 'level':
            raise LossMismatchError(
                f'{type(self).__name__}: loss_cls.scope="level" cannot be had, SSD mines the negatives of an image '
                'over all levels: set loss_cls.scope to "batch" or "image"'
            )
        super().check_losses()

    def loss_by_feat_single(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Mined samples of one image; arguments as ``SSDHead.loss_by_feat_single``."""
        return self.mined_samples(*args, **kwargs), None

    def group(self, collected: list[Any]) -> list[SampleGroup]:
        """The images apart or together."""
        return collected if self.scope == 'image' else [merge_groups(collected)]


def mine_hard_negatives(samples: MatchedSamples, num_classes: int, ratio: float) -> SampleGroup:
    """Positives, and the negatives of the largest weighted cross-entropy (Liu et al. 2016, section 2.2).

    Args:
        samples: A flat set, with softmax scores whose last column is the background.
        num_classes: Number of classes, the label of the background.
        ratio: Negatives for each positive.

    Returns:
        The chosen samples.
    """
    positives = positive_inds(samples.labels, num_classes)
    with torch.no_grad():
        loss = F.cross_entropy(samples.cls_score.float(), samples.labels, reduction='none') * samples.label_weights
        loss[positives] = -1.0  # behind all negatives, whatever their weight
    num_negatives = min(int(ratio * len(positives)), len(loss) - len(positives))
    chosen = torch.cat([positives, loss.topk(num_negatives).indices])
    return SampleGroup([samples.select(chosen)], num_classes, len(positives))

"""The seam of mmdet's RoI heads: the sampled RoIs of a batch with their targets."""

from __future__ import annotations

from typing import ClassVar

import torch
from mmdet.models.losses import accuracy
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor

from balanced_det.heads.base import MatchedLossMixin
from balanced_det.heads.checks import LossMismatchError, check_softmax
from balanced_det.matched import MatchedSamples, SampleGroup


class RoILossMixin(MatchedLossMixin):
    """Makes a head on ``BBoxHead`` hand its matched RoIs to :meth:`loss_by_matched`.

    Mix in before the host: ``class MyHead(RoILossMixin, Shared2FCBBoxHead)``. Labels stay untouched, so the refinement
    between the stages of Cascade R-CNN is that of the stock head.
    """

    SEAM: ClassVar = dict(loss=(BBoxHead,), loss_and_target=(BBoxHead,))

    def check_losses(self) -> None:
        """``loss_cls`` must be a softmax loss over the batch, without an activation of its own."""
        super().check_losses()
        name, loss = type(self).__name__, self.loss_cls
        if self.scope != 'batch':
            raise LossMismatchError(
                f'{name}: loss_cls.scope={loss.scope!r} is for heads with one set of anchors for each image; RoIs are '
                'sampled together: set loss_cls.scope="batch"'
            )
        if hasattr(loss, 'scope'):
            check_softmax(self, 'IoUBalancedCrossEntropyLoss')
        if getattr(loss, 'custom_activation', False):
            raise LossMismatchError(
                f'{name} cannot serve {type(loss).__name__}, which brings its own activation: use the stock head'
            )

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor | None,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor | None,
        bbox_weights: Tensor | None,
        reduction_override: str | None = None,
    ) -> dict[str, Tensor]:
        """Losses and accuracy of the sampled RoIs; arguments as ``BBoxHead.loss``.

        Without ``bbox_pred`` (so asks ``OHEMSampler``, which ranks RoIs by ``loss_cls``) no fit is known, and all count
        as equal: that is the stock classification loss.
        """
        if bbox_pred is None or bbox_targets is None or bbox_weights is None:
            bbox_pred = bbox_targets = bbox_weights = rois.new_zeros(len(rois), 4)
        samples = MatchedSamples(
            cls_score=cls_score,
            bbox_pred=_pred_of_label(bbox_pred, labels),
            priors=rois[:, 1:],
            labels=labels,
            label_weights=label_weights,
            bbox_targets=bbox_targets,
            bbox_weights=bbox_weights,
            # The two divisors of BBoxHead.loss; they differ when a sampled RoI has weight 0.
            cls_avg_factor=max(float((label_weights > 0).sum()), 1.0),
            bbox_avg_factor=float(len(bbox_targets)),
        )
        losses = self.loss_by_matched([SampleGroup([samples], self.num_classes)], reduction_override)
        return dict(losses, acc=accuracy(cls_score, labels))


def _pred_of_label(bbox_pred: Tensor, labels: Tensor) -> Tensor:
    """Regression output of each RoI's own class (any class for the background); (n, 4C) or (n, 4) -> (n, 4)."""
    columns = bbox_pred.view(len(bbox_pred), bbox_pred.size(1) // 4, 4)
    rows = torch.arange(len(labels), device=labels.device)
    return columns[rows, labels.clamp(max=columns.size(1) - 1)]

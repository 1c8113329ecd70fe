"""What the loss seams share: they hand matched samples to one method, and check what they are mixed into."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from balanced_det.boxes import decoded_iou, visible_boxes
from balanced_det.heads.checks import check_decoded_boxes, check_regression_targets
from balanced_det.matched import MatchedSamples, SampleGroup


class MatchedLossMixin:
    """A head whose loss is computed from its matched samples, in :meth:`loss_by_matched`.

    A subclass for each seam of mmdet collects the samples. It is mixed in before the host, and refuses a host that
    overrides the methods of the seam: its loss would be bypassed.
    """

    # Methods of the seam, and the classes whose version of them is known to fit.
    SEAM: ClassVar[dict[str, tuple[type, ...]]] = {}

    # The host's.
    bbox_coder: Any
    loss_bbox: Any
    loss_cls: Any
    num_classes: int
    reg_decoded_bbox: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        host = next((c for c in cls.__mro__ if issubclass(c, nn.Module) and not issubclass(c, MatchedLossMixin)), None)
        if host is None:  # a mixin
            return
        for method, known in cls.SEAM.items():
            owner = next((c for c in host.__mro__ if method in vars(c)), None)
            if owner not in known:
                names = ' or '.join(c.__name__ for c in known)
                raise TypeError(
                    f'{cls.__name__}: {host.__name__} cannot take a balanced loss this way, because it does not '
                    f'compute its losses as {names} does: {method} is that of {owner.__name__ if owner else "no class"}'
                )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_losses()

    def check_losses(self) -> None:
        """The loss blocks must fit the head.

        Raises:
            LossMismatchError: With the config key and the remedy.
        """
        check_decoded_boxes(self)
        check_regression_targets(self)

    def loss_by_matched(self, groups: list[SampleGroup], reduction_override: str | None = None) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            groups: The samples; a loss that normalises over samples does so over each group.
            reduction_override: 'none', 'mean' or 'sum' in place of the losses' own.

        Returns:
            'loss_cls' and 'loss_bbox', scalars unless the reduction is 'none'.
        """
        raise NotImplementedError

    def stock_cls_loss(self, group: SampleGroup, avg_factor: float, reduction_override: str | None = None) -> Tensor:
        """``loss_cls`` of a group, one call for each block, as a stock head calls it."""
        losses = [
            self.loss_cls(
                block.cls_score,
                block.labels,
                block.label_weights,
                avg_factor=avg_factor,
                reduction_override=reduction_override,
            )
            for block in group.blocks
        ]
        return torch.cat(losses) if losses[0].ndim else torch.stack(losses).sum()

    def matched_iou(self, samples: MatchedSamples) -> Tensor:
        """IoU of the regressed boxes with their targets, of a flat set of positives.

        Returns:
            Shape (n,), in [0, 1], with its gradient; NaN where a target or a prediction is not finite.
        """
        return decoded_iou(
            self.bbox_coder, samples.priors, samples.bbox_pred, samples.bbox_targets, decoded=self.reg_decoded_bbox
        )

    def regressed(self, samples: MatchedSamples) -> Tensor:
        """What ``loss_bbox`` compares with ``bbox_targets``: the deltas or, with ``reg_decoded_bbox``, the boxes."""
        if self.reg_decoded_bbox:
            return get_box_tensor(self.bbox_coder.decode(samples.priors, samples.bbox_pred))
        return samples.bbox_pred

    @property
    def scope(self) -> str:
        """Over which samples ``loss_cls`` normalises: 'batch', 'level' or 'image'."""
        return getattr(self.loss_cls, 'scope', 'batch')

    @property
    def sync(self) -> bool:
        """Whether ``loss_cls`` asks to normalise as one batch over all GPUs; then each of them must call its losses."""
        return getattr(self.loss_cls, 'sync', False)


def visible_instances(
    batch_gt_instances: list[InstanceData], batch_img_metas: list[dict]
) -> tuple[list[InstanceData], Tensor]:
    """Ground truth that can be matched.

    A box without an area inside its image overlaps nothing, and mmdet's matching by the largest overlap would make
    samples of the background its positives.

    Args:
        batch_gt_instances: Instances of each image.
        batch_img_metas: Their images, with 'img_shape'.

    Returns:
        The instances whose boxes have an area inside the image, and how many have not, a scalar.
    """
    visible = [
        visible_boxes(getattr(gt.bboxes, 'tensor', gt.bboxes), meta['img_shape'])
        for gt, meta in zip(batch_gt_instances, batch_img_metas)
    ]
    left_out = (~torch.cat(visible)).sum().float()
    if left_out > 0:
        batch_gt_instances = [gt[keep] for gt, keep in zip(batch_gt_instances, visible)]
    return batch_gt_instances, left_out


def one_class(batch_gt_instances: list[InstanceData]) -> list[InstanceData]:
    """The same boxes, all of class 0: the ground truth of a head that knows objects and background alone."""
    return [InstanceData(bboxes=gt.bboxes, labels=torch.zeros_like(gt.labels)) for gt in batch_gt_instances]

"""What must agree between the blocks of a head's config; an error names the key and the remedy."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import AnchorHead, FoveaHead, SSDHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn


class LossMismatchError(ValueError):
    """A loss block does not fit the other blocks of its head."""


def check_heads(model: nn.Module) -> None:
    """Every loss of a model must fit its head, in stock heads too, which cannot check that on their own.

    Args:
        model: A detector.

    Raises:
        LossMismatchError: The first mismatch found.
    """
    for module in model.modules():
        check = getattr(module, 'check_losses', None)
        if callable(check):  # one of this package's heads
            check()
        else:
            check_decoded_boxes(module)
            check_regression_targets(module)
            check_iou_is_handed_over(module)


def check_decoded_boxes(head: Any) -> None:
    """A loss of decoded boxes must get boxes.

    Args:
        head: Any module; passes if its ``loss_bbox`` does not say that it ``takes_boxes``.

    Raises:
        LossMismatchError: The head hands over what it regresses, deltas or distances.
    """
    loss = getattr(head, 'loss_bbox', None)
    if getattr(loss, 'takes_boxes', False) and not getattr(head, 'reg_decoded_bbox', False):
        raise LossMismatchError(
            f'{type(loss).__name__} takes decoded boxes, which {type(head).__name__} does not hand over: set '
            'reg_decoded_bbox=True if the head has it, or keep the loss_bbox that belongs to it'
        )


def check_softmax(head: Any, remedy: str) -> None:
    """The classification loss must be a softmax loss: the head scores the background as one more class.

    Args:
        head: A head with ``loss_cls``.
        remedy: Type of the loss to set in its place.

    Raises:
        LossMismatchError: It is a sigmoid loss.
    """
    if getattr(head.loss_cls, 'use_sigmoid', False):
        raise LossMismatchError(
            f'{type(head).__name__} scores the background as one more class, which a sigmoid loss would take for an '
            f'object: set loss_cls=dict(type="{remedy}", use_sigmoid=False, ...)'
        )


def is_plain_delta_coder(coder: Any) -> bool:
    """Whether the IoU of two boxes follows from the deltas that a box coder makes of them, for any anchor."""
    return type(coder) is DeltaXYWHBBoxCoder and not any(coder.means) and not coder.add_ctr_clamp


def check_regression_targets(head: Any) -> None:
    """A loss that takes its IoU from encoded deltas must decode as the head's box coder does.

    Args:
        head: Any module; passes if it has no ``loss_bbox`` with ``target_stds``.

    Raises:
        LossMismatchError: The coder's ``target_stds`` differ from the loss's, or the head regresses no plain deltas.
    """
    loss: Any = getattr(head, 'loss_bbox', None)
    coder: Any = getattr(head, 'bbox_coder', None)
    if not hasattr(loss, 'target_stds'):
        return
    name, loss_name = type(head).__name__, type(loss).__name__
    if coder is None or not hasattr(head, 'reg_decoded_bbox'):
        raise LossMismatchError(
            f'{loss_name} takes encoded deltas, which {name} does not regress: keep the loss_bbox that belongs to '
            f'{name}, or use a head on AnchorHead or BBoxHead (FoveaBox: IoUBalancedFoveaHead)'
        )
    if head.reg_decoded_bbox:
        raise LossMismatchError(
            f'{loss_name} takes encoded deltas, but bbox_head.reg_decoded_bbox=True hands it absolute boxes: '
            f'set reg_decoded_bbox=False in {name}'
        )
    if not is_plain_delta_coder(coder):
        raise LossMismatchError(
            f'{loss_name} takes the IoU from the deltas of a DeltaXYWHBBoxCoder with target_means 0 and without '
            f'add_ctr_clamp; {name}.bbox_coder is {type(coder).__name__}, target_means '
            f'{tuple(getattr(coder, "means", ()))}'
        )
    if tuple(loss.target_stds) != tuple(float(std) for std in coder.stds):
        raise LossMismatchError(
            f'{name}: loss_bbox.target_stds={tuple(loss.target_stds)} differs from bbox_coder.target_stds='
            f'{tuple(coder.stds)}, so the IoU would be wrong: set loss_bbox.target_stds={tuple(coder.stds)}'
        )


def check_iou_is_handed_over(head: Any) -> None:
    """A classification loss that needs the IoU must have a head that hands it over.

    Args:
        head: Any module; passes unless its loss method is that of ``AnchorHead``, ``FoveaHead`` or ``BBoxHead``, which
            hand over the labels alone, or that of ``SSDHead``. (GFL and its kin have their own, with labels and IoU.)
            A loss with ``eta=0`` does without the IoU.

    Raises:
        LossMismatchError: The loss would be called without the IoU.
    """
    loss: Any = getattr(head, 'loss_cls', None)
    methods = [getattr(type(head), name, None) for name in ('loss_by_feat_single', 'loss_by_feat', 'loss')]
    labels_alone = (AnchorHead.loss_by_feat_single, SSDHead.loss_by_feat, FoveaHead.loss_by_feat, BBoxHead.loss)
    if hasattr(loss, 'scope') and loss.eta and any(method in labels_alone for method in methods):
        raise LossMismatchError(
            f'{type(loss).__name__} needs the IoU of the regressed boxes, which {type(head).__name__} does not hand '
            'over: set the head to its IoU-balanced type (such as IoUBalancedRetinaHead), or keep the stock loss_cls'
        )


def check_sigmoid_spelled_out(head: Any) -> None:
    """The number of a head's score columns must fit its loss: mmdet reads ``use_sigmoid`` from the config block.

    Args:
        head: A head on ``AnchorHead``.

    Raises:
        LossMismatchError: The loss is a sigmoid loss by default, but its config block does not say so.
    """
    loss = head.loss_cls
    if getattr(loss, 'use_sigmoid', head.use_sigmoid_cls) != head.use_sigmoid_cls:
        raise LossMismatchError(
            f'{type(head).__name__}: mmdet reads loss_cls.use_sigmoid from the config, and found '
            f'{head.use_sigmoid_cls} where {type(loss).__name__} has {loss.use_sigmoid}: write '
            f'loss_cls=dict(type={type(loss).__name__!r}, use_sigmoid={loss.use_sigmoid}, ...)'
        )


def check_num_levels(module: nn.Module, feats: tuple[Tensor, ...], expected: int) -> None:
    """A module that takes feature maps must get one for each of its levels.

    Args:
        module: The module, for the message.
        feats: What it got.
        expected: How many it takes.

    Raises:
        ValueError: It got more or fewer.
    """
    if len(feats) != expected:
        raise ValueError(
            f'{type(module).__name__} takes {expected} feature maps, as many as its in_channels, and got {len(feats)}: '
            'out_indices of the backbone, or what the neck before it adds, does not fit'
        )

"""What must agree between the blocks of a head's config; an error names the key and the remedy."""

from __future__ import annotations

from typing import Any

from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder


def check_regression_targets(head: Any) -> None:
    """A loss that takes its IoU from encoded deltas must decode as the head's box coder does.

    Args:
        head: A head with ``bbox_coder`` and ``loss_bbox``; passes if the loss has no ``target_stds``.

    Raises:
        ValueError: The coder's ``target_stds`` differ from the loss's, or the head does not regress plain deltas.
    """
    loss, coder = head.loss_bbox, head.bbox_coder
    if not hasattr(loss, 'target_stds'):
        return
    name, loss_name = type(head).__name__, type(loss).__name__
    if head.reg_decoded_bbox:
        raise ValueError(
            f'{loss_name} takes encoded deltas, but bbox_head.reg_decoded_bbox=True hands it absolute boxes: '
            f'set reg_decoded_bbox=False in {name}')
    plain = type(coder) is DeltaXYWHBBoxCoder and not any(coder.means) and not coder.add_ctr_clamp
    if not plain:
        raise ValueError(
            f'{loss_name} takes the IoU from the deltas of a DeltaXYWHBBoxCoder with target_means 0 and without '
            f'add_ctr_clamp; {name}.bbox_coder is {type(coder).__name__}, target_means '
            f'{tuple(getattr(coder, "means", ()))}')
    if tuple(loss.target_stds) != tuple(float(std) for std in coder.stds):
        raise ValueError(
            f'{name}: loss_bbox.target_stds={tuple(loss.target_stds)} differs from bbox_coder.target_stds='
            f'{tuple(coder.stds)}, so the IoU would be wrong: set loss_bbox.target_stds={tuple(coder.stds)}')


def check_sigmoid_spelled_out(head: Any) -> None:
    """The number of a head's score columns must fit its loss: mmdet reads ``use_sigmoid`` from the config block.

    Args:
        head: A head on ``AnchorHead``.

    Raises:
        ValueError: The loss is a sigmoid loss by default, but its config block does not say so.
    """
    loss = head.loss_cls
    if getattr(loss, 'use_sigmoid', head.use_sigmoid_cls) != head.use_sigmoid_cls:
        raise ValueError(
            f'{type(head).__name__}: mmdet reads loss_cls.use_sigmoid from the config, and found '
            f'{head.use_sigmoid_cls} where {type(loss).__name__} has {loss.use_sigmoid}: write '
            f'loss_cls=dict(type={type(loss).__name__!r}, use_sigmoid={loss.use_sigmoid}, ...)')

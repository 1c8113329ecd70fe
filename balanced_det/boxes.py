"""Intersection over union (IoU) of boxes, also of boxes that are known only by their encoding.

A regression loss sees encoded deltas and no anchors. For mmdet's ``DeltaXYWHBBoxCoder`` with means 0 that is enough:
the anchor maps both boxes by the same translation and scaling of each axis, and such a map keeps the IoU. So the IoU
of a decoded prediction and its decoded target follows from the two delta vectors and the coder's ``target_stds``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.task_modules.coders.base_bbox_coder import BaseBBoxCoder
from mmdet.models.task_modules.coders.delta_xywh_bbox_coder import delta2bbox
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from torch import Tensor

UNIT_STDS = (1.0, 1.0, 1.0, 1.0)


def aligned_iou(boxes: Tensor, targets: Tensor) -> Tensor:
    """IoU of each box with the target in the same row.

    Computed in float32 at least: the area of a 300 x 300 box overflows float16.

    Args:
        boxes: Shape (n, 4), xyxy, absolute pixels (or any unit, the same for both).
        targets: Shape (n, 4), as ``boxes``.

    Returns:
        Shape (n,), in [0, 1]. NaN where a coordinate of either box is not finite: such a pair has no IoU.

    *Gradient*: flows to both arguments.

    Example:
        >>> aligned_iou(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
        tensor([0.3333])
    """
    _check_rows(boxes, targets)
    with torch.autocast(device_type=boxes.device.type, enabled=False):
        boxes, targets = at_least_float32(boxes), at_least_float32(targets)
        iou = bbox_overlaps(boxes, targets, is_aligned=True)
        return iou.masked_fill(~finite_rows(boxes, targets), torch.nan)


def delta_iou(pred: Tensor, target: Tensor, *, stds: Sequence[float] = UNIT_STDS) -> Tensor:
    r"""IoU of the boxes that two delta vectors of ``DeltaXYWHBBoxCoder`` describe, for any anchor.

    .. math:: IoU(decode(a, \delta_p), decode(a, \delta_t)) \quad \text{does not depend on the anchor } a.

    Both vectors are decoded on a unit anchor by mmdet's own decoder, with its clip of the width and height ratio.

    Args:
        pred: Shape (n, 4), encoded (dx, dy, dw, dh) of the predictions, normalised by ``stds``.
        target: Shape (n, 4), encoded deltas of the matched ground-truth boxes.
        stds: ``target_stds`` of the box coder whose deltas these are (its means must be 0).

    Returns:
        Shape (n,), in [0, 1]; float32 at least. NaN where a row of either argument is not finite, as the deltas of a
        ground-truth box of zero width are.

    *Gradient*: flows to both arguments; detach the result to use it as a weight.

    Example:
        >>> delta_iou(torch.tensor([[1., 0., 0., 0.]]), torch.zeros(1, 4), stds=(0.5, 1., 1., 1.))
        tensor([0.3333])
    """
    _check_rows(pred, target)
    with torch.autocast(device_type=pred.device.type, enabled=False):
        pred, target = at_least_float32(pred), at_least_float32(target)
        anchor = pred.new_tensor([-0.5, -0.5, 0.5, 0.5]).expand(2 * len(pred), 4)
        boxes = delta2bbox(anchor, torch.cat([pred, target]), stds=tuple(stds))
        iou = bbox_overlaps(boxes[: len(pred)], boxes[len(pred) :], is_aligned=True)
        return iou.masked_fill(~finite_rows(pred, target), torch.nan)


def distance_iou(pred: Tensor, target: Tensor) -> Tensor:
    r"""IoU of two boxes given by their distances from one common point.

    .. math:: w_\cap = \min(l_p, l_t) + \min(r_p, r_t), \quad h_\cap = \min(t_p, t_t) + \min(b_p, b_t)

    A common factor of both arguments cancels, so FoveaBox's log-distances (which are divided by the base length of
    their level) serve after ``exp``.

    Args:
        pred: Shape (n, 4), distances (left, top, right, bottom) from the point to the sides, pixels.
        target: Shape (n, 4), as ``pred``, same points.

    Returns:
        Shape (n,), in [0, 1]; float32 at least. NaN where a row of either argument is not finite.

    *Gradient*: flows to both arguments.

    Example:
        >>> distance_iou(torch.tensor([[1., 1., 1., 1.]]), torch.tensor([[1., 1., 3., 1.]]))
        tensor([0.5000])
    """
    pred_boxes, target_boxes = (torch.cat([-sides[:, :2], sides[:, 2:]], dim=1) for sides in (pred, target))
    return aligned_iou(pred_boxes, target_boxes)


def decoded_iou(coder: BaseBBoxCoder, priors: Tensor, pred: Tensor, target: Tensor, *, decoded: bool) -> Tensor:
    """IoU of regressed boxes with their targets, through the head's own box coder.

    Args:
        coder: The head's ``bbox_coder``; any coder with ``decode(priors, deltas)``.
        priors: Shape (n, 4), anchors or RoIs, xyxy, absolute pixels.
        pred: Shape (n, 4), the head's raw regression output for these priors.
        target: Shape (n, 4), regression targets: encoded, or absolute boxes when ``decoded``.
        decoded: The head's ``reg_decoded_bbox``.

    Returns:
        Shape (n,), in [0, 1]. NaN where a row of ``pred`` or ``target`` is not finite.

    *Gradient*: flows to ``pred``; call it under ``torch.no_grad()`` for a weight.
    """
    with torch.autocast(device_type=pred.device.type, enabled=False):
        priors, pred, target = (at_least_float32(rows) for rows in (priors, pred, target))
        if decoded:
            boxes, target_boxes = get_box_tensor(coder.decode(priors, pred)), target
        else:  # one call for both: of a few boxes, each operation costs more than its numbers
            both = get_box_tensor(coder.decode(torch.cat([priors, priors]), torch.cat([pred, target])))
            boxes, target_boxes = both[: len(pred)], both[len(pred) :]
        # A coder may bound what is not finite, so it is the encoding that tells.
        iou = bbox_overlaps(boxes, target_boxes, is_aligned=True)
        return iou.masked_fill(~finite_rows(pred, target), torch.nan)


def finite_rows(*tensors: Tensor) -> Tensor:
    """Whether all entries of a row are finite in each of the given (n, k) tensors; shape (n,), bool."""
    return torch.cat(tensors, dim=1).isfinite().all(dim=1)


def visible_boxes(boxes: Tensor, img_shape: Sequence[int]) -> Tensor:
    """Which boxes have an area inside the image.

    Args:
        boxes: Shape (n, 4), xyxy, absolute pixels.
        img_shape: (height, width) of the image in pixels.

    Returns:
        Shape (n,), bool; False for a box of zero width or height, outside the image, or not finite.
    """
    height, width = img_shape[:2]
    left, top, right, bottom = boxes.unbind(dim=1)
    has_width = right.clamp(max=width) > left.clamp(min=0)
    has_height = bottom.clamp(max=height) > top.clamp(min=0)
    return has_width & has_height & finite_rows(boxes)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32; other floating types stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _check_rows(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != 2 or first.size(-1) != 4:
        raise ValueError(
            'an IoU of matched boxes needs two tensors of the same shape (n, 4), got '
            f'{tuple(first.shape)} and {tuple(second.shape)}'
        )

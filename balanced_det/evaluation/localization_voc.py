"""COCO-style AP for data in Pascal VOC format."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mmdet.registry import METRICS
from mmengine.logging import print_log

from balanced_det.evaluation.localization import LocalizationCocoMetric

#: COCO's thresholds, as literals: ``np.linspace`` makes 0.8999999999999999 of 0.9.
IOU_THRS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@METRICS.register_module()
class LocalizationVOCMetric(LocalizationCocoMetric):
    """COCO-style AP on Pascal VOC data (``VOCDataset``, ``XMLDataset``), in place of ``VOCMetric``.

    The AP is that of :class:`LocalizationCocoMetric`, and so are the keys, with the prefix ``pascal_voc``:
    ``pascal_voc/bbox_mAP``, ``pascal_voc/bbox_mAP_50`` and so on. What differs from ``VOCMetric``: the mean
    over ten IoU thresholds, 101 recalls (not 11, nor the exact area), widths and heights without ``+1``, and
    a detection whose best box is taken already may match the next one that fits.

    The ground truth comes with the data samples as the stock VOC pipeline packs it: xyxy, absolute pixels of
    the original image, so ``LoadAnnotations`` stands after ``Resize``. (With ``instances`` among the
    ``meta_keys`` of ``PackDetInputs`` the data set's own boxes are taken, wherever it stands.)

    * ``difficult`` objects (mmdet: ``ignore_flag``, ``ignored_instances``) are neither missed nor found: they
      are no ground truth, and a detection with enough IoU with one, the first or a later one, is neither a
      true nor a false positive. A detection that fits an ordinary object as well goes to that one.
    * A class without ordinary ground truth counts in no mean.
    * Boxes of zero width or height, which nothing can find, are left out, and the log counts them.

    Args:
        **kwargs: As :class:`LocalizationCocoMetric`, without ``ann_file``; all by keyword. ``iou_thrs`` is
            0.5, 0.55, ..., 0.95.

    Raises:
        ValueError: If the data samples carry no ground truth, or two images have the same id.
    """

    default_prefix = 'pascal_voc'
    plain_iou = True

    def __init__(self, **kwargs: Any) -> None:
        ann_file = kwargs.pop('ann_file', None)
        if ann_file is not None:
            raise ValueError(
                f'LocalizationVOCMetric: ann_file = {ann_file!r}, but the ground truth comes from the data '
                'set. Take ann_file out of val_evaluator and test_evaluator, or use LocalizationCocoMetric'
            )
        if kwargs.get('iou_thrs') is None:
            kwargs['iou_thrs'] = IOU_THRS
        super().__init__(**kwargs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the predictions and the ground truth of one batch."""
        super().process(data_batch, [{**sample, 'instances': _instances(sample)} for sample in data_samples])

    def gt_to_coco_json(self, gt_dicts: Sequence[dict], outfile_prefix: str) -> str:
        """Write the ground truth that can be evaluated; log what is left out or looks wrong."""
        _check_ids(gt_dicts)
        left_out = [gt['img_id'] for gt in gt_dicts for ann in gt['anns'] if not _has_area(ann)]
        if left_out:
            _warn(f'left out {len(left_out)} ground-truth boxes of zero width or height, {_images(left_out)}')
        outside = [gt['img_id'] for gt in gt_dicts for ann in gt['anns'] if _leaves_image(ann, gt)]
        if outside:
            _warn(
                f'{len(outside)} ground-truth boxes reach beyond their image, {_images(outside)}. If that '
                'is most of them, LoadAnnotations stands before Resize in the test pipeline; put it after'
            )
        kept = [{**gt, 'anns': [ann for ann in gt['anns'] if _has_area(ann)]} for gt in gt_dicts]
        return super().gt_to_coco_json(kept, outfile_prefix)


def _instances(sample: dict) -> list[dict]:
    """Ground truth of one image as ``CocoMetric`` reads it.

    Returns:
        One dict per object: ``bbox`` (xyxy, absolute pixels), ``bbox_label``, ``ignore_flag``.
    """
    if 'instances' in sample:
        return sample['instances']
    if 'bboxes' not in sample.get('gt_instances', {}):
        raise ValueError(
            f'LocalizationVOCMetric: no ground truth came with image {sample["img_id"]!r}. In the pipeline '
            'of val_dataloader.dataset and test_dataloader.dataset, put '
            "dict(type='LoadAnnotations', with_bbox=True) after Resize"
        )
    instances = []
    for field, flag in (('gt_instances', 0), ('ignored_instances', 1)):
        if 'bboxes' in sample.get(field, {}):
            boxes, labels = (sample[field][key].cpu().numpy().tolist() for key in ('bboxes', 'labels'))
            instances += [{'bbox': box, 'bbox_label': label, 'ignore_flag': flag} for box, label in zip(boxes, labels)]
    return instances


def _check_ids(gt_dicts: Sequence[dict]) -> None:
    twice = [img_id for img_id, count in Counter(gt['img_id'] for gt in gt_dicts).items() if count > 1]
    if twice:
        raise ValueError(
            f'LocalizationVOCMetric: the image ids {twice[:5]} occur more than once, so the detections in '
            'them cannot be told apart. In val_dataloader.dataset and test_dataloader.dataset, use no '
            'RepeatDataset, and give files of the same name in two folders different names'
        )


def _has_area(ann: dict) -> bool:
    x1, y1, x2, y2 = ann['bbox']
    return x2 > x1 and y2 > y1


def _leaves_image(ann: dict, image: dict) -> bool:
    # one pixel of play: VOC counts pixels from 1, and data sets differ in whether they know it
    x1, y1, x2, y2 = ann['bbox']
    return min(x1, y1) < -1 or x2 > image['width'] + 1 or y2 > image['height'] + 1


def _images(ids: Sequence) -> str:
    return f'in images {", ".join(str(img_id) for img_id in ids[:5])}{", ..." if len(ids) > 5 else ""}'


def _warn(message: str) -> None:
    print_log(f'LocalizationVOCMetric: {message}', logger='current', level=logging.WARNING)

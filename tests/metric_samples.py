"""Small inputs of detection metrics: predictions, data samples, annotation files; boxes xyxy, absolute pixels."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

MMDET_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
EXTRA_ITEMS = ('mAP_60', 'mAP_70', 'mAP_80', 'mAP_85', 'mAP_90')
BOX = (0, 0, 100, 100)
FAR = (300, 300, 400, 400)


def found(boxes: Sequence = (), scores: Sequence = (), labels: Sequence | None = None) -> dict:
    """Predictions of one image as mmdet hands them to a metric: xyxy, absolute pixels.

    In float64, unlike a detector's: in the published results two IoUs are exactly 0.6 and 0.8, which float32
    corners miss (AP 0.504 instead of 0.505, AP60 0.687 instead of 0.690).
    """
    return {
        'bboxes': torch.tensor(np.array(boxes, dtype=float)).reshape(-1, 4),
        'scores': torch.tensor(np.array(scores, dtype=float)),
        'labels': torch.tensor(labels if labels is not None else [0] * len(boxes), dtype=torch.long),
    }


def truth(boxes: Sequence = (), labels: Sequence | None = None) -> dict:
    predictions = found(boxes, [1.0] * len(boxes), labels)
    return {key: predictions[key] for key in ('bboxes', 'labels')}


def sample(img_id, predictions: dict, **fields) -> dict:
    return {'img_id': img_id, 'ori_shape': (480, 640), 'pred_instances': predictions, **fields}


def evaluate(metric: BaseMetric, samples: list[dict], classes: Sequence[str] = ('thing',)) -> dict:
    metric.dataset_meta = {'classes': tuple(classes)}
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def coco_file(folder: Path, images: dict, classes: Sequence[str] = ('thing',)) -> str:
    """Annotation file; `images` maps an image id to its [(label, xyxy), ...]."""
    annotations = [
        {
            'image_id': img_id,
            'category_id': label + 1,
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'area': (x2 - x1) * (y2 - y1),
            'segmentation': [[x1, y1, x2, y1, x2, y2, x1, y2]],
            'iscrowd': 0,
        }
        for img_id, boxes in images.items()
        for label, (x1, y1, x2, y2) in boxes
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation['id'] = number
    content = {
        'images': [{'id': i, 'width': 640, 'height': 480, 'file_name': f'{i}.jpg'} for i in images],
        'categories': [{'id': number, 'name': name} for number, name in enumerate(classes, start=1)],
        'annotations': annotations,
    }
    path = folder / 'instances.json'
    path.write_text(json.dumps(content))
    return str(path)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collects the messages of mmengine's current logger."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)

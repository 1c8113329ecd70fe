"""Evaluation in C++ by the optional package faster_coco_eval; imported only where that backend is asked for.

faster_coco_eval matches and accumulates. What is read out of it is left to the classes that it stands in for:
its own summary has AP for the largest ``maxDets`` where that of pycocotools has it for 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from faster_coco_eval import COCOeval_faster
from mmdet.datasets.api_wrappers import COCO, COCOeval, COCOevalMP

from balanced_det.evaluation.backends import PlainIoU


class FastEval(COCOeval_faster):
    """In place of pycocotools' ``COCOeval``."""

    cocoGt: COCO
    cocoDt: COCO
    summarize = COCOeval.summarize

    def evaluate(self) -> None:
        """Match; faster_coco_eval knows images by whole numbers, so those with names get some."""
        names = np.unique(self.params.imgIds)
        if names.dtype.kind not in 'iu':
            number = {name: k for k, name in enumerate(names.tolist())}
            self.cocoGt, self.cocoDt = _numbered(self.cocoGt, number), _numbered(self.cocoDt, number)
            self.params.imgIds = list(number.values())
        super().evaluate()


class FastEvalMP(FastEval):
    """In place of mmdet's ``COCOevalMP`` (``use_mp_eval``); in one process, as several would take longer."""

    summarize = COCOevalMP.summarize


class _FastPlainIoU(PlainIoU):
    def _truths(self, image: Any, category: Any) -> list[dict]:
        return self.gt_dataset.get(image, category)  # type: ignore[attr-defined]


class FastVOCEval(_FastPlainIoU, FastEval):
    """:class:`FastEval` for VOC's ``difficult``."""


class FastVOCEvalMP(_FastPlainIoU, FastEvalMP):
    """:class:`FastEvalMP` for VOC's ``difficult``."""


def _numbered(coco: COCO, number: Mapping[Any, int]) -> COCO:
    """A copy in which the images have numbers."""
    copy = COCO()
    copy.dataset = {
        **coco.dataset,
        'images': [{**image, 'id': number[image['id']]} for image in coco.dataset['images']],
        'annotations': [{**ann, 'image_id': number[ann['image_id']]} for ann in coco.dataset.get('annotations', [])],
    }
    copy.createIndex()
    return copy

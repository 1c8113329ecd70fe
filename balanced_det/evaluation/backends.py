"""What evaluates a metric: pycocotools or, where it is asked for, faster_coco_eval.

Both match detections and average precision by the same rules. pycocotools does it in Python; faster_coco_eval,
an optional package, in C++ (:mod:`balanced_det.evaluation.fast`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmdet.datasets.api_wrappers import COCOeval, COCOevalMP

BACKENDS = ('pycocotools', 'faster_coco_eval')


def evaluators(backend: str, *, plain_iou: bool = False) -> dict[str, Callable[..., COCOeval]]:
    """What to make under the two names by which mmdet's ``CocoMetric`` looks up its evaluators.

    Args:
        backend: One of :data:`BACKENDS`.
        plain_iou: Whether ignored ground truth is matched by ordinary IoU (:class:`PlainIoU`).

    Raises:
        ValueError: If there is no such backend.
        ImportError: If faster_coco_eval is asked for and cannot be imported.
    """
    if backend == 'pycocotools':
        made = (VOCEval, VOCEvalMP) if plain_iou else (COCOeval, COCOevalMP)
    elif backend == 'faster_coco_eval':
        try:
            from balanced_det.evaluation import fast
        except ImportError as error:
            raise ImportError(
                "backend='faster_coco_eval' of val_evaluator or test_evaluator needs a package that cannot be imported "
                f"({error}). Run: pip install 'faster-coco-eval>=1.7.2'; or leave backend out, for the same numbers by "
                'pycocotools'
            ) from error
        made = (fast.FastVOCEval, fast.FastVOCEvalMP) if plain_iou else (fast.FastEval, fast.FastEvalMP)
    else:
        raise ValueError(
            f'backend={backend!r} of val_evaluator or test_evaluator is unknown; there are '
            + ' and '.join(map(repr, BACKENDS))
        )
    return dict(zip(('COCOeval', 'COCOevalMP'), made))


class PlainIoU:
    """Turns COCO's crowd into VOC's ``difficult``: ignored, however often it is found, with ordinary IoU.

    For a crowd box pycocotools divides the intersection by the area of the *detection*, so any detection
    inside it is forgiven. For a ``difficult`` object only a detection that fits it is. Both backends read the
    flag ``iscrowd`` in two places: to choose that ratio (here, where it is hidden) and to let several
    detections match one box (where it stays).
    """

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        """IoU of the detections and the ground truth of one image and category."""
        categories = [catId] if self.params.useCats else self.params.catIds  # type: ignore[attr-defined]
        boxes = [box for category in categories for box in self._truths(imgId, category)]
        flags = [box['iscrowd'] for box in boxes]
        for box in boxes:
            box['iscrowd'] = 0
        try:
            return super().computeIoU(imgId, catId)  # type: ignore[misc]
        finally:
            for box, flag in zip(boxes, flags):
                box['iscrowd'] = flag

    def _truths(self, image: Any, category: Any) -> list[dict]:
        """The annotations that the evaluator works on."""
        return self._gts[image, category]  # type: ignore[attr-defined]


# On module level, because COCOevalMP pickles itself.
class VOCEval(PlainIoU, COCOeval):
    """pycocotools' evaluator for VOC's ``difficult``."""


class VOCEvalMP(PlainIoU, COCOevalMP):
    """mmdet's evaluator in several processes for VOC's ``difficult``."""

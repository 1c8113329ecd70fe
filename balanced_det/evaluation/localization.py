"""AP at every IoU threshold that tells how tightly the boxes sit, from one COCO evaluation.

mmdet's ``CocoMetric`` evaluates ten IoU thresholds and reports two of them. Losses that couple score and IoU
show their effect at the others (the papers' tables have AP60 to AP90), so the metric here reads those out of
the same evaluation. The matching, the AP and mmdet's own numbers stay what they are.

AP is COCO's: precision, made monotone, averaged over the 101 recalls 0, 0.01, ..., 1. That is the area under
the precision-recall curve up to the sampling. Source: ``COCOeval.accumulate`` of pycocotools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation.metrics import CocoMetric, coco_metric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from balanced_det.evaluation.backends import evaluators

#: Reported besides mmdet's own AP, AP50 and AP75.
EXTRA_IOU_THRS = (0.6, 0.7, 0.8, 0.85, 0.9)


def precision_at(coco_eval: COCOeval, iou: float) -> float:
    r"""AP at one IoU threshold, not rounded, from an accumulated evaluation.

    .. math:: AP_{iou} = mean \{ p_{iou}(r, c) : r \in \{0, 0.01, ..., 1\}, \; c \text{ has ground truth} \}

    All areas, largest ``maxDets``: what pycocotools does for its AP50 and AP75 (``COCOeval.summarize``).

    Args:
        coco_eval: After ``evaluate()`` and ``accumulate()``.
        iou: One of ``coco_eval.params.iouThrs``.

    Returns:
        AP in [0, 1], or -1 (pycocotools' sign for it) if no class has ground truth.

    Raises:
        ValueError: If the threshold was not evaluated.
    """
    params = coco_eval.params
    index = np.flatnonzero(np.isclose(params.iouThrs, iou))
    if index.size == 0:
        raise ValueError(f'IoU threshold {iou} was not evaluated; evaluated were {_listed(params.iouThrs)}')
    # precision: (IoU thresholds, recalls, classes, areas, maxDets); -1 marks a class without ground truth
    precision = coco_eval.eval['precision'][index[0], :, :, params.areaRngLbl.index('all'), -1]
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else -1.0


@METRICS.register_module()
class LocalizationCocoMetric(CocoMetric):
    """``CocoMetric`` that also reports AP60, AP70, AP80, AP85 and AP90.

    Keys, for ``metric='bbox'``: mmdet's ``coco/bbox_mAP``, ``_mAP_50``, ``_mAP_75``, ``_mAP_s``,
    ``_mAP_m``, ``_mAP_l`` with the values of ``CocoMetric``, and ``coco/bbox_mAP_60`` and so on.
    ``metric='segm'`` has the same under ``segm_``; the proposal metrics, which are recalls, get nothing. All
    are rounded to 3 digits, as mmdet does; :func:`precision_at` has the full number. No class with ground
    truth: -1. No detection in the whole data set: mmdet logs that and reports no key at all.

    As in pycocotools, AP at one threshold takes the best 1000 detections of an image (the largest of
    ``proposal_nums``), and ``bbox_mAP`` the best 100; mmdet's detectors return 100.

    Args:
        *args: As ``CocoMetric``.
        extra_iou_thrs: IoU thresholds to report besides mmdet's; each must be one of ``iou_thrs``.
        backend: ``'pycocotools'``, or ``'faster_coco_eval'``: the same numbers in a fraction of the time, from
            an optional package (``pip install faster-coco-eval``). With it ``use_mp_eval`` starts no processes.
        **kwargs: As ``CocoMetric``. ``metric_items`` may name the extra ones too (``['mAP', 'mAP_60']``):
            without it all are reported, with it only those named. ``iou_thrs`` may be a list (on which stock
            ``CocoMetric`` fails).

    Raises:
        ValueError: If there is no such backend or a threshold to report is not evaluated; or, as soon as the
            data set is known (before training starts), if one of its classes is not in the annotation file.
        ImportError: If the package of the backend cannot be imported.
    """

    #: Whether ignored ground truth is matched by ordinary IoU, not as COCO's crowd.
    plain_iou: ClassVar[bool] = False
    iou_thrs: np.ndarray
    metric_items: Sequence[str] | None

    def __init__(
        self,
        *args: Any,
        extra_iou_thrs: Sequence[float] = EXTRA_IOU_THRS,
        backend: str = 'pycocotools',
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.evaluators = evaluators(backend, plain_iou=self.plain_iou)
        # pycocotools compares this with 0.5 and 0.75: numpy >= 2.1 crashes on a list, older ones find nothing
        self.iou_thrs = np.array(self.iou_thrs, dtype=float, ndmin=1)
        extra = {_item(thr): float(thr) for thr in extra_iou_thrs}
        if self.metric_items is not None:
            wanted = list(self.metric_items)
            self.metric_items = [item for item in wanted if item not in extra]
            extra = {item: extra[item] for item in wanted if item in extra}
        self.extra_items = extra
        if {'bbox', 'segm'} & set(self.metrics):
            self._check_thresholds()

    def _check_thresholds(self) -> None:
        for thr in self.extra_items.values():
            if not np.isclose(self.iou_thrs, thr).any():
                raise ValueError(
                    f'{type(self).__name__}: extra_iou_thrs has {thr:g}, which is not among iou_thrs = '
                    f'{_listed(self.iou_thrs)}. In val_evaluator and test_evaluator, add {thr:g} to iou_thrs '
                    'or take it out of extra_iou_thrs (thresholds are fractions: 0.6 for AP60)'
                )

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the data set; mmengine sets it when it builds the loops, before training."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        if self._coco_api is not None and dataset_meta:
            known = [category['name'] for category in self._coco_api.dataset.get('categories', [])]
            missing = [name for name in dataset_meta.get('classes', ()) if name not in known]
            if missing:
                # mmdet would leave these out without a word, and the labels of the others would shift
                raise ValueError(
                    f'{type(self).__name__}: the classes {missing} of the data set are not in the annotation '
                    f'file, which has {known}. Make metainfo=dict(classes=...) of val_dataloader.dataset and '
                    'test_dataloader.dataset agree with ann_file of val_evaluator and test_evaluator'
                )
        self._dataset_meta = dataset_meta

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute mmdet's metrics and, from the same evaluation, AP at the extra thresholds."""
        if not results:  # mmengine has warned already; mmdet would fail to unpack it
            return {}
        runs: list[COCOeval] = []
        # mmdet keeps its COCOeval to itself, so for the time of the call the names under which it makes one
        # are watched. By a function, as COCOevalMP pickles itself, and a local subclass cannot be pickled.
        watched: dict[str, Any] = {name: _watched(make, runs) for name, make in self.evaluators.items()}
        with patch.multiple(coco_metric, **watched):
            metrics = super().compute_metrics(results)
        for run in runs:
            if self.extra_items and run.params.useCats:  # without categories it is a proposal recall
                values = {item: round(precision_at(run, thr), 3) for item, thr in self.extra_items.items()}
                metrics.update({f'{run.params.iouType}_{item}': value for item, value in values.items()})
                line = ', '.join(f'{item} {value:.3f}' for item, value in values.items())
                MMLogger.get_current_instance().info(f'{run.params.iouType}: {line}')
        return metrics


def _item(iou: float) -> str:
    """Name of AP at a threshold: 0.6 -> ``mAP_60``."""
    return f'mAP_{round(100 * iou, 2):g}'


def _listed(thresholds: Iterable[float]) -> str:
    return '[' + ', '.join(f'{thr:.4g}' for thr in thresholds) + ']'


def _watched(make: Callable[..., COCOeval], made: list[COCOeval]) -> Callable[..., COCOeval]:
    """``make``, and what it makes is also appended to ``made``."""

    def make_and_keep(*args: Any, **kwargs: Any) -> COCOeval:
        made.append(make(*args, **kwargs))
        return made[-1]

    return make_and_keep

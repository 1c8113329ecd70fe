"""Metrics of localisation quality: AP at high IoU thresholds, and how far the score tells the IoU."""

from balanced_det.evaluation.coco_files import CocoFileError, read_annotations, read_results
from balanced_det.evaluation.consistency import (
    IOU_EDGES,
    Consistency,
    ConsistencyCurves,
    MatchedDetections,
    consistency,
    consistency_curves,
    match_detections,
    match_image,
    score_iou_correlation,
)
from balanced_det.evaluation.consistency_metric import ConsistencyMetric
from balanced_det.evaluation.localization import LocalizationCocoMetric, precision_at
from balanced_det.evaluation.localization_voc import LocalizationVOCMetric
from balanced_det.evaluation.training import NotMeasurable, Positives, PositivesRecorder, aic, summarize

__all__ = [
    'IOU_EDGES',
    'CocoFileError',
    'Consistency',
    'ConsistencyCurves',
    'ConsistencyMetric',
    'LocalizationCocoMetric',
    'LocalizationVOCMetric',
    'MatchedDetections',
    'NotMeasurable',
    'Positives',
    'PositivesRecorder',
    'aic',
    'consistency',
    'consistency_curves',
    'match_detections',
    'match_image',
    'precision_at',
    'read_annotations',
    'read_results',
    'score_iou_correlation',
    'summarize',
]

"""Metrics of localisation quality: AP at high IoU thresholds, and how far the score tells the IoU."""

from balanced_det.evaluation.consistency import MatchedDetections, match_detections, score_iou_correlation
from balanced_det.evaluation.localization import LocalizationCocoMetric, precision_at
from balanced_det.evaluation.localization_voc import LocalizationVOCMetric

__all__ = [
    'LocalizationCocoMetric',
    'LocalizationVOCMetric',
    'MatchedDetections',
    'match_detections',
    'precision_at',
    'score_iou_correlation',
]

"""The losses of :mod:`iou_balanced.functional` as registered mmdet modules."""

from iou_balanced.losses.classification import (
    IoUBalancedClassification,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
)
from iou_balanced.losses.localization import IoUBalancedSmoothL1Loss

__all__ = [
    'IoUBalancedClassification',
    'IoUBalancedCrossEntropyLoss',
    'IoUBalancedFocalLoss',
    'IoUBalancedSmoothL1Loss',
]

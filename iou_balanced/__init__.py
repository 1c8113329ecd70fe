"""IoU-balanced losses (Wu et al., *IoU-balanced loss functions for single-stage object detection*).

Importing the package registers its losses and heads in mmdet.
"""

import balanced_det  # checks the mmdet installation before anything else is imported from it
from iou_balanced.heads import (
    IoUBalancedBBoxHead,
    IoUBalancedConvFCBBoxHead,
    IoUBalancedDSSDHead,
    IoUBalancedFoveaHead,
    IoUBalancedRefineDetHead,
    IoUBalancedRetinaHead,
    IoUBalancedRetinaSepBNHead,
    IoUBalancedRPNHead,
    IoUBalancedShared2FCBBoxHead,
    IoUBalancedShared4Conv1FCBBoxHead,
    IoUBalancedSSDHead,
)
from iou_balanced.losses import IoUBalancedCrossEntropyLoss, IoUBalancedFocalLoss, IoUBalancedSmoothL1Loss

__version__ = balanced_det.__version__
__all__ = [
    'IoUBalancedBBoxHead',
    'IoUBalancedConvFCBBoxHead',
    'IoUBalancedCrossEntropyLoss',
    'IoUBalancedDSSDHead',
    'IoUBalancedFocalLoss',
    'IoUBalancedFoveaHead',
    'IoUBalancedRPNHead',
    'IoUBalancedRefineDetHead',
    'IoUBalancedRetinaHead',
    'IoUBalancedRetinaSepBNHead',
    'IoUBalancedSSDHead',
    'IoUBalancedShared2FCBBoxHead',
    'IoUBalancedShared4Conv1FCBBoxHead',
    'IoUBalancedSmoothL1Loss',
]

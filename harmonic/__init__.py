"""HarmonicDet (Wang and Zhang, *Reconcile Prediction Consistency for Balanced Object Detection*).

Importing the package registers its losses and heads in mmdet.
"""

import balanced_det  # checks the mmdet installation before anything else is imported from it
from harmonic.heads import (
    HarmonicBBoxHead,
    HarmonicConvFCBBoxHead,
    HarmonicDSSDHead,
    HarmonicFoveaHead,
    HarmonicRefineDetHead,
    HarmonicRetinaHead,
    HarmonicRetinaSepBNHead,
    HarmonicShared2FCBBoxHead,
    HarmonicShared4Conv1FCBBoxHead,
    HarmonicSSDHead,
)
from harmonic.losses import HarmonicDetLoss, HIoULoss

__version__ = balanced_det.__version__
__all__ = [
    'HIoULoss',
    'HarmonicBBoxHead',
    'HarmonicConvFCBBoxHead',
    'HarmonicDSSDHead',
    'HarmonicDetLoss',
    'HarmonicFoveaHead',
    'HarmonicRefineDetHead',
    'HarmonicRetinaHead',
    'HarmonicRetinaSepBNHead',
    'HarmonicSSDHead',
    'HarmonicShared2FCBBoxHead',
    'HarmonicShared4Conv1FCBBoxHead',
]

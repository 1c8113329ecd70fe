"""The table of methods: which heads and losses of mmdet and of ``balanced_det`` they replace, and by what.

Names and numbers alone: this package imports no method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LossForm:
    """What a stock loss becomes.

    Attributes:
        type: Registered name of the balanced loss.
        arguments: Those its block may hold, in the order in which they are written: from the stock block where it has
            them, else from ``spelled``, else from the head's values, else left out.
        spelled: Arguments to write even where the stock block leaves them to mmdet's default.
    """

    type: str
    arguments: tuple[str, ...]
    spelled: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadForm:
    """What a stock head becomes.

    Attributes:
        type: Registered name of the balanced head.
        values: Arguments of its balanced losses.
        has_coder: Whether it regresses what a box coder encodes, so that a loss may need the coder's ``target_stds``.
    """

    type: str
    values: Mapping[str, Any] = field(default_factory=dict)
    has_coder: bool = True


@dataclass(frozen=True)
class Method:
    """One family of balanced losses.

    Attributes:
        title: Its name in texts.
        package: What a config imports to have it registered.
        heads: Stock head -> its balanced form.
        losses: Block of a head -> stock loss -> its balanced form; a block without an entry stays as it is.
        kept: Block of a head that stays -> the stock losses that may stand in it.
        added: Blocks that a head gets in addition.
        calibrated: The block whose weight ``LocWeightCalibrationHook`` sets once it is swapped.
    """

    title: str
    package: str
    heads: Mapping[str, HeadForm]
    losses: Mapping[str, Mapping[str, LossForm]] = field(default_factory=dict)
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    calibrated: str | None = None

    def owns(self, name: str) -> bool:
        """Whether this is the name of a head or a loss of the method."""
        losses = [form.type for forms in self.losses.values() for form in forms.values()]
        return name in {*losses, *(form.type for form in self.heads.values())}


# Wu et al.: eta and lambda are 1.5 (Table 3), beta is 0.111 (Eq. 13); eta 1.3 is the authors' for Faster R-CNN.
# The beta is for a detector with L1 in mmdet, which has none: that of the smooth L1 in the detector's paper.
RETINANET = dict(eta=1.5, lambda_=1.5, beta=0.111)
FOVEABOX = dict(eta=1.5, lambda_=1.5, beta=0.11)
SSD = dict(eta=1.5, lambda_=1.5, beta=1.0)
RCNN = dict(eta=1.3, lambda_=1.5, beta=1.0)
SMOOTH_L1_ARGUMENTS = ('beta', 'lambda_', 'target_stds', 'reduction', 'loss_weight')

METHODS = {
    'iou-balanced': Method(
        title='IoU-balanced losses',
        package='iou_balanced',
        heads={
            'RetinaHead': HeadForm('IoUBalancedRetinaHead', RETINANET),
            'RetinaSepBNHead': HeadForm('IoUBalancedRetinaSepBNHead', RETINANET),
            'RPNHead': HeadForm('IoUBalancedRPNHead', RETINANET),
            'FoveaHead': HeadForm('IoUBalancedFoveaHead', FOVEABOX, has_coder=False),
            'SSDHead': HeadForm('IoUBalancedSSDHead', SSD),
            'ConfigurableSSDHead': HeadForm('IoUBalancedSSDHead', SSD),
            'DSSDHead': HeadForm('IoUBalancedDSSDHead', SSD),
            'RefineDetHead': HeadForm('IoUBalancedRefineDetHead', SSD),
            'BBoxHead': HeadForm('IoUBalancedBBoxHead', RCNN),
            'ConvFCBBoxHead': HeadForm('IoUBalancedConvFCBBoxHead', RCNN),
            'Shared2FCBBoxHead': HeadForm('IoUBalancedShared2FCBBoxHead', RCNN),
            'Shared4Conv1FCBBoxHead': HeadForm('IoUBalancedShared4Conv1FCBBoxHead', RCNN),
        },
        losses={
            'loss_cls': {
                'FocalLoss': LossForm(
                    'IoUBalancedFocalLoss',
                    ('use_sigmoid', 'gamma', 'alpha', 'eta', 'reduction', 'loss_weight'),
                    dict(use_sigmoid=True),  # mmdet's heads read it in the config, where no default is to be seen
                ),
                'CrossEntropyLoss': LossForm(
                    'IoUBalancedCrossEntropyLoss',
                    ('use_sigmoid', 'eta', 'reduction', 'loss_weight'),
                    dict(use_sigmoid=False),
                ),
            },
            'loss_bbox': {
                'SmoothL1Loss': LossForm('IoUBalancedSmoothL1Loss', SMOOTH_L1_ARGUMENTS, dict(beta=1.0)),
                'L1Loss': LossForm('IoUBalancedSmoothL1Loss', SMOOTH_L1_ARGUMENTS),
            },
        },
        calibrated='loss_bbox',
    ),
    'harmonic': Method(
        title='HarmonicDet',
        package='harmonic',
        heads={
            'RetinaHead': HeadForm('HarmonicRetinaHead'),
            'RetinaSepBNHead': HeadForm('HarmonicRetinaSepBNHead'),
            'FoveaHead': HeadForm('HarmonicFoveaHead', has_coder=False),
            'SSDHead': HeadForm('HarmonicSSDHead'),
            'ConfigurableSSDHead': HeadForm('HarmonicSSDHead'),
            'DSSDHead': HeadForm('HarmonicDSSDHead'),
            'RefineDetHead': HeadForm('HarmonicRefineDetHead'),
            'BBoxHead': HeadForm('HarmonicBBoxHead'),
            'ConvFCBBoxHead': HeadForm('HarmonicConvFCBBoxHead'),
            'Shared2FCBBoxHead': HeadForm('HarmonicShared2FCBBoxHead'),
            'Shared4Conv1FCBBoxHead': HeadForm('HarmonicShared4Conv1FCBBoxHead'),
        },
        kept={'loss_cls': ('FocalLoss', 'CrossEntropyLoss')},  # each has a value for a sample, and a probability
        added={'loss_joint': dict(type='HarmonicDetLoss')},
    ),
}

"""One mixin for each seam at which mmdet's heads compute their losses."""

from balanced_det.heads.anchor import AnchorLossMixin
from balanced_det.heads.base import MatchedLossMixin
from balanced_det.heads.checks import LossMismatchError, check_heads
from balanced_det.heads.fovea import FoveaLossMixin
from balanced_det.heads.roi import RoILossMixin
from balanced_det.heads.ssd import ConfigurableSSDHead, SSDLossMixin

__all__ = [
    'AnchorLossMixin',
    'ConfigurableSSDHead',
    'FoveaLossMixin',
    'LossMismatchError',
    'MatchedLossMixin',
    'RoILossMixin',
    'SSDLossMixin',
    'check_heads',
]

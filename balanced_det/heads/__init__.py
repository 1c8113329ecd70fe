"""One mixin for each seam at which mmdet's heads compute their losses."""

from balanced_det.heads.anchor import AnchorLossMixin
from balanced_det.heads.checks import LossMismatchError, check_heads
from balanced_det.heads.roi import RoILossMixin

__all__ = ['AnchorLossMixin', 'LossMismatchError', 'RoILossMixin', 'check_heads']

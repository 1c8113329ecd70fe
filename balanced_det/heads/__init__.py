"""One mixin for each seam at which mmdet's heads compute their losses."""

from balanced_det.heads.anchor import AnchorLossMixin
from balanced_det.heads.checks import check_iou_is_handed_over, check_regression_targets
from balanced_det.heads.roi import RoILossMixin

__all__ = ['AnchorLossMixin', 'RoILossMixin', 'check_iou_is_handed_over', 'check_regression_targets']

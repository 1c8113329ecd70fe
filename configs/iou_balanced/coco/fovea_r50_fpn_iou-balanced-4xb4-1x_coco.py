"""Paper A, Table 1, row 16: IoU-balanced FoveaBox-R50 on COCO, 1333 x 800; w_loc was not published."""
_base_ = [
    './fovea_r50_fpn_4xb4-1x_coco.py',
    '../../_base_/losses/iou_balanced_focal_fovea.py',
    '../../_base_/losses/iou_balanced_smooth_l1_fovea.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedFoveaHead',
        loss_cls=dict(_delete_=True, **_base_.iou_balanced_focal_fovea),
        loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1_fovea)))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

"""The demo's second arm: the baseline with its two losses swapped, w_loc by the paper's rule."""
_base_ = [
    './retinanet_r18_fpn_digit-scenes.py',
    '../_base_/losses/iou_balanced_focal.py',
    '../_base_/losses/iou_balanced_smooth_l1.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedRetinaHead',
        loss_cls=dict(_delete_=True, **_base_.iou_balanced_focal),
        loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1)))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

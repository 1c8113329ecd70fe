"""Paper A, Table 5, row 7: IoU-balanced SSD512 on VOC07+12, 24 epochs of 10 repeats; w_loc was not published."""
_base_ = [
    './ssd512_voc0712.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedSSDHead',
        loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
        loss_bbox=_base_.iou_balanced_smooth_l1_ssd))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

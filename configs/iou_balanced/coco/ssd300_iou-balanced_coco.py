"""Paper A, Table 1, row 17: IoU-balanced SSD300 on COCO, 120 epochs (24 of 5 repeats).

The authors' config has 2 GPUs x 32 images and w_loc 1.0, a placeholder; the value of the paper was not published.
"""
_base_ = [
    './ssd300_coco.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedSSDHead',
        loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
        loss_bbox=_base_.iou_balanced_smooth_l1_ssd))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

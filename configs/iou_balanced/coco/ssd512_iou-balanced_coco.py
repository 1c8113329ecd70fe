"""Paper A, Table 1, row 18: IoU-balanced SSD512 on COCO, 120 epochs (24 of 5 repeats).

The authors' config has 2 GPUs x 8 images at the same rate and w_loc 1.0, a placeholder; the paper scales the rate
linearly, and its w_loc was not published.
"""
_base_ = [
    './ssd512_coco.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedSSDHead',
        loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
        loss_bbox=_base_.iou_balanced_smooth_l1_ssd))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

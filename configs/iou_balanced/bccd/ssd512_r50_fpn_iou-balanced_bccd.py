"""IoU-balanced SSD512 on ResNet-50-FPN, on BCCD (VOC format, three classes)."""
_base_ = [
    '../../ssd_resnet_fpn/ssd512_r50_fpn_bccd.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedSSDHead',
        loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
        loss_bbox=_base_.iou_balanced_smooth_l1_ssd))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

"""IoU-balanced RefineDet320 on ResNet-50, on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = [
    '../../refinedet/refinedet320_r50_coco-tiny.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedRefineDetHead',
        loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
        loss_bbox=_base_.iou_balanced_smooth_l1_ssd))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

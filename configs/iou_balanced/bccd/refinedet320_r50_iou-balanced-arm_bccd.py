"""RefineDet320 on ResNet-50, its ARM IoU-balanced as well as its ODM, on BCCD (VOC format, three classes)."""
_base_ = [
    '../../refinedet/refinedet320_r50_bccd.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
]
balanced_losses = dict(
    loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
    loss_bbox=_base_.iou_balanced_smooth_l1_ssd)
model = dict(
    arm_head=dict(type='IoUBalancedDSSDHead', **balanced_losses),
    bbox_head=dict(type='IoUBalancedRefineDetHead', **balanced_losses))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]  # of each head its own w_loc

"""Paper A, Table 1: IoU-balanced FoveaBox-R50 on COCO, 1333 x 800."""
_base_ = [
    '../../_base_/models/fovea_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/iou_balanced_focal_fovea.py',
    '../../_base_/losses/iou_balanced_smooth_l1_fovea.py',
    '../../_base_/runtime.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedFoveaHead',
        loss_cls=dict(_delete_=True, **_base_.iou_balanced_focal_fovea),
        loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1_fovea)))
train_dataloader = dict(batch_size=4, num_workers=4)
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.01))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

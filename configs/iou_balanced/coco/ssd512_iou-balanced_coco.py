"""Paper A, Table 1: IoU-balanced SSD512 on COCO, 120 epochs (24 of 5 repeats)."""
_base_ = [
    '../../_base_/models/ssd512.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../../_base_/datasets/ssd_pipeline.py',
    'mmdet::_base_/schedules/schedule_2x.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
    '../../_base_/runtime.py',
]
_base_.ssd_train_pipeline[5].scale = (512, 512)
_base_.ssd_test_pipeline[1].scale = (512, 512)
model = dict(
    bbox_head=dict(
        type='IoUBalancedSSDHead',
        loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
        loss_bbox=_base_.iou_balanced_smooth_l1_ssd))
_base_.train_dataloader.dataset.pipeline = _base_.ssd_train_pipeline
train_dataloader = dict(
    batch_size=8, batch_sampler=None,
    dataset=dict(_delete_=True, type='RepeatDataset', times=5, dataset=_base_.train_dataloader.dataset))
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=5e-4))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='CheckInvalidLossHook', interval=50, priority='VERY_LOW'),
    dict(type='LocWeightCalibrationHook'),
]
auto_scale_lr = dict(base_batch_size=64)

"""IoU-balanced SSD300 on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = [
    'mmdet::_base_/models/ssd300.py',
    '../../_base_/datasets/coco_tiny.py',
    '../../_base_/datasets/ssd_pipeline.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_ssd.py',
    '../../_base_/runtime.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedSSDHead',
        loss_cls=dict(_base_.iou_balanced_cross_entropy, eta=1.5),
        loss_bbox=_base_.iou_balanced_smooth_l1_ssd))
train_dataloader = dict(batch_size=8, batch_sampler=None, dataset=dict(pipeline=_base_.ssd_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.00025, weight_decay=5e-4))  # mmdet's 0.002 is for 64 images, this is for 8
_base_.param_scheduler[0].end = 50  # mmdet's 500 iterations of warm-up would be most of this training
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3), logger=dict(interval=10))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]
auto_scale_lr = dict(base_batch_size=8)

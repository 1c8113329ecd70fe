"""Paper B, Table 2, row 6: RefineDet320-R101 on COCO, 4 GPUs x 8 images.

The paper states no schedule: 400k iterations are those of RefineDet's release (ResNet101_COCO_320.py).
"""
_base_ = [
    '../../_base_/models/refinedet_r50.py',
    '../../_base_/backbones/r101.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../../_base_/datasets/ssd_pipeline.py',
    '../../_base_/schedules/sgd_400k-iter.py',
    '../../_base_/runtime.py',
]
_base_.ssd_train_pipeline[5].scale = (320, 320)
_base_.ssd_test_pipeline[1].scale = (320, 320)
model = dict(backbone=_base_.r101)
train_dataloader = dict(
    batch_size=8, num_workers=4, batch_sampler=None, sampler=dict(type='InfiniteSampler'),
    dataset=dict(pipeline=_base_.ssd_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator
custom_hooks = [*_base_.custom_hooks, dict(type='CheckInvalidLossHook', interval=50, priority='VERY_LOW')]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=20000, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)

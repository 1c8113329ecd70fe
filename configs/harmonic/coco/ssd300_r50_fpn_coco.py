"""Paper B, Table 2, row 4: SSD300 on ResNet-50-FPN on COCO, 8 GPUs x 8 images.

The paper states neither architecture (docs/ssd_resnet_fpn.md) nor schedule: 24 epochs of 5 repeats are those of mmdet's
ssd300_coco.
"""
_base_ = [
    '../../_base_/models/ssd_r50_fpn.py',
    '../../_base_/datasets/coco_repeated.py',
    '../../_base_/datasets/ssd_pipeline.py',
    '../../_base_/schedules/sgd_2x_ssd.py',
    '../../_base_/runtime.py',
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=_base_.ssd_train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
custom_hooks = [*_base_.custom_hooks, dict(type='CheckInvalidLossHook', interval=50, priority='VERY_LOW')]

"""Paper A, Table 1, row 11: SSD300 on COCO, 120 epochs (24 of 5 repeats); the head can validate, mmdet's cannot."""
_base_ = [
    'mmdet::_base_/models/ssd300.py',
    '../../_base_/datasets/coco_repeated.py',
    '../../_base_/datasets/ssd_pipeline.py',
    '../../_base_/schedules/sgd_2x_ssd.py',
    '../../_base_/runtime.py',
]
model = dict(bbox_head=dict(type='ConfigurableSSDHead'))
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=_base_.ssd_train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
custom_hooks = [*_base_.custom_hooks, dict(type='CheckInvalidLossHook', interval=50, priority='VERY_LOW')]

"""Paper B, Table 1, row 5: SSD300 on ResNet-50-FPN on VOC07+12, 8 GPUs x 8 images.

The paper states neither architecture (docs/ssd_resnet_fpn.md) nor schedule: 24 epochs of 10 repeats, the learning rate
and the sizes of the anchors are those of mmdet's ssd300_voc0712 and ssd512_voc0712.
"""
_base_ = [
    '../../_base_/models/ssd_r50_fpn.py',
    '../../_base_/datasets/voc0712_repeated.py',
    '../../_base_/datasets/ssd_pipeline.py',
    '../../_base_/schedules/sgd_2x_ssd.py',
    '../../_base_/runtime.py',
]
_base_.train_dataloader.dataset.dataset.datasets[0].pipeline = _base_.ssd_train_pipeline
_base_.train_dataloader.dataset.dataset.datasets[1].pipeline = _base_.ssd_train_pipeline
model = dict(bbox_head=dict(num_classes=20, anchor_generator=dict(basesize_ratio_range=(0.2, 0.9))))
train_dataloader = dict(batch_size=8, num_workers=3, batch_sampler=None, dataset=dict(times=10))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3))
_base_.param_scheduler[1].milestones = [16, 20]
custom_hooks = [*_base_.custom_hooks, dict(type='CheckInvalidLossHook', interval=50, priority='VERY_LOW')]

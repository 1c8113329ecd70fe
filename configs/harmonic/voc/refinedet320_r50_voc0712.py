"""Paper B, Table 1, row 9: RefineDet320-R50 on VOC07+12, 4 GPUs x 8 images.

The paper states no schedule: 120k iterations are those of RefineDet's release, which has VGG-16 on VOC.
"""
_base_ = [
    '../../_base_/models/refinedet_r50.py',
    '../../_base_/datasets/voc0712.py',
    '../../_base_/datasets/ssd_pipeline.py',
    '../../_base_/schedules/sgd_120k-iter.py',
    '../../_base_/runtime.py',
]
_base_.ssd_train_pipeline[5].scale = (320, 320)
_base_.ssd_test_pipeline[1].scale = (320, 320)
_base_.train_dataloader.dataset.datasets[0].pipeline = _base_.ssd_train_pipeline
_base_.train_dataloader.dataset.datasets[1].pipeline = _base_.ssd_train_pipeline
model = dict(bbox_head=dict(num_classes=20))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
custom_hooks = [*_base_.custom_hooks, dict(type='CheckInvalidLossHook', interval=50, priority='VERY_LOW')]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)

"""SSD300 with HarmonicDet on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = [
    'mmdet::_base_/models/ssd300.py',
    '../../_base_/datasets/coco_tiny.py',
    '../../_base_/datasets/ssd_pipeline.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/harmonic_det.py',
    '../../_base_/runtime.py',
]
model = dict(bbox_head=dict(type='HarmonicSSDHead', loss_joint=_base_.harmonic_det))
train_dataloader = dict(batch_size=8, batch_sampler=None, dataset=dict(pipeline=_base_.ssd_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.00025, weight_decay=5e-4))  # mmdet's 0.002 is for 64 images, this is for 8
_base_.param_scheduler[0].end = 50  # mmdet's 500 iterations of warm-up would be most of this training
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3), logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=8)

"""RetinaNet-R50 with HarmonicDet on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_tiny.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/harmonic_det.py',
    '../../_base_/runtime.py',
]
model = dict(bbox_head=dict(type='HarmonicRetinaHead', loss_joint=_base_.harmonic_det))
optim_wrapper = dict(optimizer=dict(lr=0.00125))  # mmdet's 0.01 is for 16 images an iteration, this is for 2
_base_.param_scheduler[0].end = 50  # mmdet's 500 iterations of warm-up would be most of this training
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3), logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=2)

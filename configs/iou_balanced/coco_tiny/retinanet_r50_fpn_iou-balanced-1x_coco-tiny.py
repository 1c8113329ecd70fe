"""IoU-balanced RetinaNet-R50 on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_tiny.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/iou_balanced_focal.py',
    '../../_base_/losses/iou_balanced_smooth_l1.py',
    '../../_base_/runtime.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedRetinaHead',
        loss_cls=dict(_delete_=True, **_base_.iou_balanced_focal),
        loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1)))
optim_wrapper = dict(optimizer=dict(lr=0.00125))  # mmdet's 0.01 is for 16 images an iteration, this is for 2
_base_.param_scheduler[0].end = 50  # mmdet's 500 iterations of warm-up would be most of this training
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3), logger=dict(interval=10))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]
auto_scale_lr = dict(base_batch_size=2)

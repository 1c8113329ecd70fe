"""Eight epochs of Cityscapes repeated eight times, as in mmdet's faster-rcnn_r50_fpn_1x_cityscapes: 8 GPUs x 1 image.

The learning rate is RetinaNet's 0.01 for 16 images, scaled linearly.
"""
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

train_cfg = dict(max_epochs=8)
_base_.param_scheduler[1].end = 8
_base_.param_scheduler[1].milestones = [7]
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=8)

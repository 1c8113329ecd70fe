"""mmdet's 1x at the learning rate of 12 images, 2 GPUs x 6: Faster R-CNN's 0.02 for 16; RetinaNet has half of it."""
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(optimizer=dict(lr=0.015))
auto_scale_lr = dict(base_batch_size=12)

"""mmdet's 2x with the optimizer of its ssd300_coco, 8 GPUs x 8 images."""
_base_ = 'mmdet::_base_/schedules/schedule_2x.py'

optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=5e-4))
auto_scale_lr = dict(base_batch_size=64)

"""Four epochs of VOC07+12 repeated three times, without warm-up: mmdet's retinanet_r50_fpn_1x_voc0712."""
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

train_cfg = dict(max_epochs=4)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=4, by_epoch=True, milestones=[3], gamma=0.1)]
optim_wrapper = dict(optimizer=dict(lr=0.01))

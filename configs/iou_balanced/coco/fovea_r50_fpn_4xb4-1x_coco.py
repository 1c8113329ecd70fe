"""Paper A, Table 1, row 10: FoveaBox-R50 on COCO, 1333 x 800, 4 GPUs x 4 images as in mmdet."""
_base_ = [
    '../../_base_/models/fovea_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/runtime.py',
]
train_dataloader = dict(batch_size=4, num_workers=4)
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.01))

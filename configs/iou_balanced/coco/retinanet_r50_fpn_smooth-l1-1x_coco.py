"""Paper A, Table 1, row 13, and Table 4, row 2: RetinaNet-R50 on COCO, 1333 x 800."""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn_smooth-l1.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

"""Paper B, Table 2, row 18: Mask R-CNN-R50 on COCO, 1333 x 800, 8 GPUs x 2 images.

The paper states no schedule: mmdet's 1x, with which Faster R-CNN has 37.4 AP on val2017 in mmdet and 37.3 in Table 3.
"""
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/runtime.py',
]
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

"""Paper A, Table 1, row 8: Faster R-CNN-R50 on COCO, 1333 x 800."""
_base_ = [
    '../../_base_/models/faster-rcnn_r50_fpn_smooth-l1.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/runtime.py',
]
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

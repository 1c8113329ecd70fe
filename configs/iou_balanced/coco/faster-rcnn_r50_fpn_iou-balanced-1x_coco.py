"""IoU-balanced Faster R-CNN-R50 on COCO, 1333 x 800 (paper A, Table 7, at mmdet's default scale)."""
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_rcnn.py',
    '../../_base_/runtime.py',
]
model = dict(
    roi_head=dict(
        bbox_head=dict(
            type='IoUBalancedShared2FCBBoxHead',
            loss_cls=dict(_delete_=True, **_base_.iou_balanced_cross_entropy),
            loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1_rcnn))))
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

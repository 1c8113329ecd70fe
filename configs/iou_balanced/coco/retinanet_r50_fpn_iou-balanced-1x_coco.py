"""Paper A, Table 1, row 19, and Table 4, row 6: IoU-balanced RetinaNet-R50 on COCO, 1333 x 800.

w_loc is that of 1000 x 600 (Table 3); the authors' configs have no other for ResNet-50.
"""
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
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
optim_wrapper = dict(optimizer=dict(lr=0.01))
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

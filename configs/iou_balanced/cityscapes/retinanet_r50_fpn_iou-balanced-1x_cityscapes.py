"""Paper A, Table 6, row 3: IoU-balanced RetinaNet-R50 on Cityscapes, 2048 x 800 to 2048 x 1024, from that on COCO.

w_loc was not published.
"""
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/cityscapes_detection.py',
    '../../_base_/schedules/sgd_1x_cityscapes.py',
    '../../_base_/losses/iou_balanced_focal.py',
    '../../_base_/losses/iou_balanced_smooth_l1.py',
    '../../_base_/runtime.py',
]
model = dict(
    backbone=dict(init_cfg=None),
    bbox_head=dict(
        type='IoUBalancedRetinaHead',
        num_classes=8,
        loss_cls=dict(_delete_=True, **_base_.iou_balanced_focal),
        loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1)))
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]
# Another file: --cfg-options load_from=PATH. The scores of COCO's 80 classes do not fit and are learnt anew.
load_from = 'work_dirs/retinanet_r50_fpn_iou-balanced-1x_coco/epoch_12.pth'

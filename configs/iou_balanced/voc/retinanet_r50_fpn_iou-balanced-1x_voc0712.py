"""Paper A, Table 5, row 8: IoU-balanced RetinaNet-R50 on VOC07+12, 1000 x 600; the authors' w_loc."""
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/voc0712_repeated.py',
    '../../_base_/schedules/sgd_1x_voc0712.py',
    '../../_base_/losses/iou_balanced_focal.py',
    '../../_base_/losses/iou_balanced_smooth_l1.py',
    '../../_base_/runtime.py',
]
model = dict(
    bbox_head=dict(
        type='IoUBalancedRetinaHead',
        num_classes=20,
        loss_cls=dict(_delete_=True, **_base_.iou_balanced_focal),
        loss_bbox=dict(_base_.iou_balanced_smooth_l1, _delete_=True, loss_weight=2.34)))

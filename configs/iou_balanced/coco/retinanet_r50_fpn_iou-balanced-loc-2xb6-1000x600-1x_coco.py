"""Paper A, Table 2, row 3, and Table 3, lambda 1.5: RetinaNet-R50 with the IoU-balanced localisation loss alone."""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn_smooth-l1.py',
    '../../_base_/datasets/coco_1000x600.py',
    '../../_base_/schedules/sgd_1x_2xb6.py',
    '../../_base_/losses/iou_balanced_smooth_l1.py',
    '../../_base_/runtime.py',
]
model = dict(
    bbox_head=dict(type='IoUBalancedRetinaHead', loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1)))
optim_wrapper = dict(optimizer=dict(lr=0.0075))

"""Paper A, Table 2, row 4: IoU-balanced RetinaNet-R50 on COCO, 1000 x 600."""
_base_ = [
    './retinanet_r50_fpn_iou-balanced-cls-2xb6-1000x600-1x_coco.py',
    '../../_base_/losses/iou_balanced_smooth_l1.py',
]
model = dict(bbox_head=dict(loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1)))

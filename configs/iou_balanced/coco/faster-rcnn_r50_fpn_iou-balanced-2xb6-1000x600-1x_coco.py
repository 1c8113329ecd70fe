"""Paper A, Table 7, row 4: IoU-balanced Faster R-CNN-R50 on COCO, 1000 x 600.

The paper prints no eta, lambda and w_loc for Faster R-CNN; the authors' config has 1.3, 1.5 and 2.4.
"""
_base_ = [
    './faster-rcnn_r50_fpn_smooth-l1-2xb6-1000x600-1x_coco.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
    '../../_base_/losses/iou_balanced_smooth_l1_rcnn.py',
]
model = dict(
    roi_head=dict(
        bbox_head=dict(
            type='IoUBalancedShared2FCBBoxHead',
            loss_cls=dict(_delete_=True, **_base_.iou_balanced_cross_entropy),
            loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1_rcnn))))

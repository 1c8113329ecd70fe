"""Paper A, Table 7, row 3: Faster R-CNN-R50 with the IoU-balanced localisation loss alone.

The paper prints no lambda and w_loc for Faster R-CNN; the authors' config has 1.5 and 2.4.
"""
_base_ = [
    './faster-rcnn_r50_fpn_smooth-l1-2xb6-1000x600-1x_coco.py',
    '../../_base_/losses/iou_balanced_smooth_l1_rcnn.py',
]
model = dict(
    roi_head=dict(
        bbox_head=dict(
            type='IoUBalancedShared2FCBBoxHead',
            loss_bbox=dict(_delete_=True, **_base_.iou_balanced_smooth_l1_rcnn))))

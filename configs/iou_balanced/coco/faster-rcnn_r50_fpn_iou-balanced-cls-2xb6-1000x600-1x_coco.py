"""Paper A, Table 7, row 2: Faster R-CNN-R50 with the IoU-balanced classification loss alone.

The paper prints no eta for Faster R-CNN; the authors' 2-GPU config has 1.3, the one for 4 GPUs 1.25.
"""
_base_ = [
    './faster-rcnn_r50_fpn_smooth-l1-2xb6-1000x600-1x_coco.py',
    '../../_base_/losses/iou_balanced_cross_entropy.py',
]
model = dict(
    roi_head=dict(
        bbox_head=dict(
            type='IoUBalancedShared2FCBBoxHead',
            loss_cls=dict(_delete_=True, **_base_.iou_balanced_cross_entropy))))

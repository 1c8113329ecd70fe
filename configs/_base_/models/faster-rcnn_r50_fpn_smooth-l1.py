"""Faster R-CNN-R50 with smooth L1 in the R-CNN head, as in paper A's time; mmdet's has L1. The RPN stays mmdet's."""
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    roi_head=dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0, loss_weight=1.0))))

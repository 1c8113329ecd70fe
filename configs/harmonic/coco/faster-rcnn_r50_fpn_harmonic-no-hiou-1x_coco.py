"""Paper B, Table 3, row 2, and Table 4, row 2: the Harmonic loss with its TC loss, without HIoU."""
_base_ = './faster-rcnn_r50_fpn_harmonic-1x_coco.py'
model = dict(roi_head=dict(bbox_head=dict(loss_joint=dict(hiou=False))))

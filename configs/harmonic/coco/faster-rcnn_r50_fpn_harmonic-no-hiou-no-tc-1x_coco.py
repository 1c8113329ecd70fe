"""Paper B, Table 4, row 1: the Harmonic loss alone, without TC loss and HIoU."""
_base_ = './faster-rcnn_r50_fpn_harmonic-1x_coco.py'
model = dict(roi_head=dict(bbox_head=dict(loss_joint=dict(hiou=False, tc=False))))

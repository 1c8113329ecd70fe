"""Paper B, Table 5, row 4: Faster R-CNN-R50 with HarmonicDet, alpha 2.5."""
_base_ = './faster-rcnn_r50_fpn_harmonic-1x_coco.py'
model = dict(roi_head=dict(bbox_head=dict(loss_joint=dict(alpha=2.5))))

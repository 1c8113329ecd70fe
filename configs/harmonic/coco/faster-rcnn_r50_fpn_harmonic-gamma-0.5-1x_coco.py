"""Paper B, Table 5, row 6: Faster R-CNN-R50 with HarmonicDet, gamma 0.5."""
_base_ = './faster-rcnn_r50_fpn_harmonic-1x_coco.py'
model = dict(roi_head=dict(bbox_head=dict(loss_joint=dict(gamma=0.5))))

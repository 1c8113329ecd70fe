"""Paper B, Table 3, row 3, and Table 5, row 5: HarmonicDet with gamma 0, which makes HIoU the IoU loss."""
_base_ = './faster-rcnn_r50_fpn_harmonic-1x_coco.py'
model = dict(roi_head=dict(bbox_head=dict(loss_joint=dict(gamma=0.0))))

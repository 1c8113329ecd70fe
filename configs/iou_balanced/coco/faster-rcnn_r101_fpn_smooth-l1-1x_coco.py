"""Paper A, Table 1, row 9: Faster R-CNN-R101 on COCO, 1333 x 800."""
_base_ = ['./faster-rcnn_r50_fpn_smooth-l1-1x_coco.py', '../../_base_/backbones/r101.py']
model = dict(backbone=_base_.r101)

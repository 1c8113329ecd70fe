"""Paper B, Table 1, row 2: Faster R-CNN-R101 on VOC07+12, 1000 x 600."""
_base_ = ['./faster-rcnn_r50_fpn_1x_voc0712.py', '../../_base_/backbones/r101.py']
model = dict(backbone=_base_.r101)

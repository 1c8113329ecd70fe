"""Paper A, Table 5, row 4: RetinaNet-R101 on VOC07+12, 1000 x 600."""
_base_ = ['./retinanet_r50_fpn_smooth-l1-1x_voc0712.py', '../../_base_/backbones/r101.py']
model = dict(backbone=_base_.r101)

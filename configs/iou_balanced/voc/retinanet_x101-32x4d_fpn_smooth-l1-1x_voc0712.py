"""Paper A, Table 5, row 5: RetinaNet-X101-32x4d on VOC07+12, 1000 x 600."""
_base_ = ['./retinanet_r50_fpn_smooth-l1-1x_voc0712.py', '../../_base_/backbones/x101_32x4d.py']
model = dict(backbone=_base_.x101_32x4d)

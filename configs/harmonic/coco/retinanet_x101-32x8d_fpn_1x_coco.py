"""Paper B, Table 2, row 9: RetinaNet-X101-32x8d on COCO, 1333 x 800."""
_base_ = ['./retinanet_r50_fpn_1x_coco.py', '../../_base_/backbones/x101_32x8d.py']
model = _base_.x101_32x8d

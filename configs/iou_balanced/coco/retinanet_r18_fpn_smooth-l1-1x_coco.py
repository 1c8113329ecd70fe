"""Paper A, Table 4, row 1: RetinaNet-R18 on COCO, 1333 x 800."""
_base_ = ['./retinanet_r50_fpn_smooth-l1-1x_coco.py', '../../_base_/backbones/r18.py']
model = dict(backbone=_base_.r18, neck=dict(in_channels=[64, 128, 256, 512]))

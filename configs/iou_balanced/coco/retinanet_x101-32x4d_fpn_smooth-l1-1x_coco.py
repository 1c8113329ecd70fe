"""Paper A, Table 1, row 15, and Table 4, row 4: RetinaNet-X101-32x4d on COCO, 1333 x 800.

The authors' config has lr 0.0025 for 8 images; the paper's linear rule gives 0.005.
"""
_base_ = ['./retinanet_r50_fpn_smooth-l1-1x_coco.py', '../../_base_/backbones/x101_32x4d.py']
model = dict(backbone=_base_.x101_32x4d)

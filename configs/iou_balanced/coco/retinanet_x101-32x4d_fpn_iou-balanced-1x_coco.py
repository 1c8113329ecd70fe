"""Paper A, Table 1, row 21, and Table 4, row 8: IoU-balanced RetinaNet-X101-32x4d on COCO, 1333 x 800.

w_loc was not published. The authors' config has lr 0.0025 for 8 images; the paper's linear rule gives 0.005.
"""
_base_ = ['./retinanet_r50_fpn_iou-balanced-1x_coco.py', '../../_base_/backbones/x101_32x4d.py']
model = dict(backbone=_base_.x101_32x4d)
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

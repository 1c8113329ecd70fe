"""Paper A, Table 4, row 5: IoU-balanced RetinaNet-R18 on COCO, 1333 x 800; w_loc was not published."""
_base_ = ['./retinanet_r50_fpn_iou-balanced-1x_coco.py', '../../_base_/backbones/r18.py']
model = dict(backbone=_base_.r18, neck=dict(in_channels=[64, 128, 256, 512]))
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

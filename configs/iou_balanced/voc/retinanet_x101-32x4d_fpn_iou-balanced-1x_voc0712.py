"""Paper A, Table 5, row 10: IoU-balanced RetinaNet-X101-32x4d on VOC07+12, 1000 x 600; w_loc was not published."""
_base_ = ['./retinanet_r50_fpn_iou-balanced-1x_voc0712.py', '../../_base_/backbones/x101_32x4d.py']
model = dict(backbone=_base_.x101_32x4d)
custom_hooks = [*_base_.custom_hooks, dict(type='LocWeightCalibrationHook')]

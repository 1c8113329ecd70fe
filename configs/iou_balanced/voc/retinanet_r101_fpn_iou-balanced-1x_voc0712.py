"""Paper A, Table 5, row 9: IoU-balanced RetinaNet-R101 on VOC07+12, 1000 x 600; the authors' w_loc."""
_base_ = ['./retinanet_r50_fpn_iou-balanced-1x_voc0712.py', '../../_base_/backbones/r101.py']
model = dict(backbone=_base_.r101, bbox_head=dict(loss_bbox=dict(loss_weight=2.369)))

"""Paper A, Table 1, row 20, and Table 4, row 7: IoU-balanced RetinaNet-R101 on COCO, 1333 x 800; the authors' w_loc."""
_base_ = ['./retinanet_r50_fpn_iou-balanced-1x_coco.py', '../../_base_/backbones/r101.py']
model = dict(backbone=_base_.r101, bbox_head=dict(loss_bbox=dict(loss_weight=2.878)))

"""Paper A, Table 6, row 4: IoU-balanced RetinaNet-R101 on Cityscapes, 2048 x 800 to 2048 x 1024, from that on COCO.

w_loc was not published.
"""
_base_ = './retinanet_r50_fpn_iou-balanced-1x_cityscapes.py'
model = dict(backbone=dict(depth=101))
load_from = 'work_dirs/retinanet_r101_fpn_iou-balanced-1x_coco/epoch_12.pth'  # another: --cfg-options load_from=PATH

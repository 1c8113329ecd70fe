"""Paper A, Table 6, row 2: RetinaNet-R101 on Cityscapes, 2048 x 800 to 2048 x 1024, from that on COCO."""
_base_ = './retinanet_r50_fpn_smooth-l1-1x_cityscapes.py'
model = dict(backbone=dict(depth=101))
load_from = 'work_dirs/retinanet_r101_fpn_smooth-l1-1x_coco/epoch_12.pth'  # another: --cfg-options load_from=PATH

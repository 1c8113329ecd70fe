"""Paper A, Table 3, eta 1.6: RetinaNet-R50 with the IoU-balanced classification loss alone, 1000 x 600."""
_base_ = './retinanet_r50_fpn_iou-balanced-cls-2xb6-1000x600-1x_coco.py'
model = dict(bbox_head=dict(loss_cls=dict(eta=1.6)))

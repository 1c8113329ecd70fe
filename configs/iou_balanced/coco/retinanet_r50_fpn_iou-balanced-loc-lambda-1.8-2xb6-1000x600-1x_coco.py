"""Paper A, Table 3, lambda 1.8: RetinaNet-R50 with the IoU-balanced localisation loss alone, 1000 x 600."""
_base_ = './retinanet_r50_fpn_iou-balanced-loc-2xb6-1000x600-1x_coco.py'
model = dict(bbox_head=dict(loss_bbox=dict(lambda_=1.8, loss_weight=3.649)))

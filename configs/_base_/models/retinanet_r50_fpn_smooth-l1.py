"""RetinaNet-R50 with the smooth L1 of paper A, delta 0.111; mmdet's has L1."""
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

model = dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=0.111, loss_weight=1.0)))

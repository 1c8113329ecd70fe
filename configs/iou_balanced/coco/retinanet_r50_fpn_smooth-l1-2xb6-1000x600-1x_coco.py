"""Paper A, Table 2, row 1, and Table 3, eta 0 and lambda 0: RetinaNet-R50 on COCO, 1000 x 600.

The batch is that of the authors' config.
"""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn_smooth-l1.py',
    '../../_base_/datasets/coco_1000x600.py',
    '../../_base_/schedules/sgd_1x_2xb6.py',
    '../../_base_/runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.0075))

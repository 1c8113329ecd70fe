"""Paper A, Table 5, row 3: RetinaNet-R50 on VOC07+12, 1000 x 600, on mmdet's schedule, 4 epochs of 3 repeats.

mmdet's learning rate falls once, after three of the four epochs; the authors' config has 12 epochs without repeats,
steps after 8 and 11, and the same rate for an image.
"""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn_smooth-l1.py',
    '../../_base_/datasets/voc0712_repeated.py',
    '../../_base_/schedules/sgd_1x_voc0712.py',
    '../../_base_/runtime.py',
]
model = dict(bbox_head=dict(num_classes=20))

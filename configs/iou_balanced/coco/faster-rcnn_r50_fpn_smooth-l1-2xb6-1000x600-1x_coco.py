"""Paper A, Table 7, row 1: Faster R-CNN-R50 on COCO, 1000 x 600, with the batch of the authors' configs."""
_base_ = [
    '../../_base_/models/faster-rcnn_r50_fpn_smooth-l1.py',
    '../../_base_/datasets/coco_1000x600.py',
    '../../_base_/schedules/sgd_1x_2xb6.py',
    '../../_base_/runtime.py',
]

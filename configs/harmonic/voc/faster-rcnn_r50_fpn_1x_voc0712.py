"""Paper B, Table 1, row 1: Faster R-CNN-R50 on VOC07+12, 1000 x 600, 8 GPUs x 2 images.

The paper states no schedule: four epochs of three repeats are those of mmdet's faster-rcnn_r50_fpn_1x_voc0712. Small
boxes stay in the training, where mmdet takes them out.
"""
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../../_base_/datasets/voc0712_repeated.py',
    '../../_base_/schedules/sgd_1x_voc0712.py',
    '../../_base_/runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))

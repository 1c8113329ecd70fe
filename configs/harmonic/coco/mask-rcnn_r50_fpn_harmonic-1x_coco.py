"""Paper B, Table 2, row 22: Mask R-CNN-R50 with HarmonicDet on COCO, 1333 x 800; the mask branch is the stock one."""
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/harmonic_det.py',
    '../../_base_/runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(type='HarmonicShared2FCBBoxHead', loss_joint=_base_.harmonic_det)))
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

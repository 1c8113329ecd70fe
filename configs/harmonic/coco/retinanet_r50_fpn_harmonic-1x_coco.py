"""Paper B, Table 2, row 14: RetinaNet-R50 with HarmonicDet on COCO, 1333 x 800."""
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/losses/harmonic_det.py',
    '../../_base_/runtime.py',
]
model = dict(bbox_head=dict(type='HarmonicRetinaHead', loss_joint=_base_.harmonic_det))
optim_wrapper = dict(optimizer=dict(lr=0.01))
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

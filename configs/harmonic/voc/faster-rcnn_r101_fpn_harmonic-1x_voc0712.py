"""Paper B, Table 1, row 4: Faster R-CNN-R101 with HarmonicDet on VOC07+12, 1000 x 600."""
_base_ = [
    './faster-rcnn_r50_fpn_1x_voc0712.py',
    '../../_base_/backbones/r101.py',
    '../../_base_/losses/harmonic_det.py',
]
model = dict(
    backbone=_base_.r101,
    roi_head=dict(bbox_head=dict(type='HarmonicShared2FCBBoxHead', loss_joint=_base_.harmonic_det)))

"""Paper B, Table 1, row 11: SSD300 on ResNet-50-FPN with HarmonicDet on VOC07+12."""
_base_ = ['./ssd300_r50_fpn_voc0712.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicSSDHead', loss_joint=_base_.harmonic_det))

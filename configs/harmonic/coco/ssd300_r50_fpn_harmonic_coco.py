"""Paper B, Table 2, row 10: SSD300 on ResNet-50-FPN with HarmonicDet on COCO."""
_base_ = ['./ssd300_r50_fpn_coco.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicSSDHead', loss_joint=_base_.harmonic_det))

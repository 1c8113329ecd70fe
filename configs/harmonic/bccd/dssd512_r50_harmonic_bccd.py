"""DSSD512 on ResNet-50 with HarmonicDet, on BCCD (VOC format, three classes)."""
_base_ = ['../../dssd/dssd512_r50_bccd.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicDSSDHead', loss_joint=_base_.harmonic_det))

"""RefineDet320 on ResNet-50 with HarmonicDet, on BCCD (VOC format, three classes)."""
_base_ = ['../../refinedet/refinedet320_r50_bccd.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicRefineDetHead', loss_joint=_base_.harmonic_det))

"""RefineDet512 on ResNet-50 with HarmonicDet, on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = ['../../refinedet/refinedet512_r50_coco-tiny.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicRefineDetHead', loss_joint=_base_.harmonic_det))

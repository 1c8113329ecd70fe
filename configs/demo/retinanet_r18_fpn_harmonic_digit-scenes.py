"""The demo's third arm: the baseline with its two losses coupled by HarmonicDet."""
_base_ = ['./retinanet_r18_fpn_digit-scenes.py', '../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicRetinaHead', loss_joint=_base_.harmonic_det))

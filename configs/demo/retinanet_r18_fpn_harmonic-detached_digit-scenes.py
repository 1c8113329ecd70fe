"""HarmonicDet with its factors as constants; `tools/demo.py --methods baseline,harmonic,harmonic-detached`."""
_base_ = ['./retinanet_r18_fpn_digit-scenes.py', '../_base_/losses/harmonic_det.py']
model = dict(
    bbox_head=dict(type='HarmonicRetinaHead', loss_joint=dict(_base_.harmonic_det, detach_factors=True)))

"""HarmonicDet with its factors as constants; `tools/demo.py --methods baseline,harmonic,harmonic-detached`."""
_base_ = './retinanet_r18_fpn_harmonic_digit-scenes.py'
model = dict(bbox_head=dict(loss_joint=dict(detach_factors=True)))

"""Paper B, Table 1, row 13: DSSD320-R50 with HarmonicDet on VOC07+12."""
_base_ = ['./dssd320_r50_voc0712.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicDSSDHead', loss_joint=_base_.harmonic_det))

"""Paper B, Table 1, row 15: RefineDet320-R50 with HarmonicDet on VOC07+12; the ARM is the stock one."""
_base_ = ['./refinedet320_r50_voc0712.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicRefineDetHead', loss_joint=_base_.harmonic_det))

"""Paper B, Table 2, row 12: RefineDet320-R101 with HarmonicDet on COCO; the ARM is the stock one."""
_base_ = ['./refinedet320_r101_coco.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicRefineDetHead', loss_joint=_base_.harmonic_det))

"""DSSD's encoder on VOC07+12: DSSD320 without the way back up, SSD with prediction modules; two stages follow."""
_base_ = '../harmonic/voc/dssd320_r50_voc0712.py'
model = dict(
    backbone=dict(frozen_stages=-1),  # as in the release, where no layer is frozen
    neck=[_base_.model.neck[0]],
    bbox_head=dict(in_channels=(512, 2048, 1024, 1024, 1024, 1024)))

"""DSSD320 on VOC07+12, stage 1 of 2: the encoder is frozen, deconvolution and head learn for 30k iterations."""
_base_ = '../harmonic/voc/dssd320_r50_voc0712.py'
model = dict(
    backbone=dict(frozen_stages=4, init_cfg=None),
    neck=[dict(_base_.model.neck[0], frozen=True), _base_.model.neck[1]])
_base_.param_scheduler[1].milestones = [20000]
train_cfg = dict(max_iters=30000)
# Another file: --cfg-options load_from=PATH. What has the encoder's name and shape is taken from it, so the predictors
# too; of the release's heads the deepest alone.
load_from = 'work_dirs/ssd320_r50_dssd-encoder_voc0712/iter_80000.pth'

"""DSSD320 on VOC07+12, stage 2 of 2: all layers but the batch norms learn, 40k iterations at a tenth of the rate."""
_base_ = '../harmonic/voc/dssd320_r50_voc0712.py'
# As in the release: the norms keep their statistics, scales and shifts, and no layer is frozen.
frozen_norm = dict(type='BN', requires_grad=False)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=frozen_norm, init_cfg=None),
    neck=[
        dict(_base_.model.neck[0], norm_cfg=frozen_norm, norm_eval=True),
        dict(_base_.model.neck[1], norm_cfg=frozen_norm, norm_eval=True),
    ],
    bbox_head=dict(block_norm_cfg=frozen_norm, norm_eval=True))
optim_wrapper = dict(optimizer=dict(lr=0.0001))
_base_.param_scheduler[1].milestones = [20000]
train_cfg = dict(max_iters=40000)
load_from = 'work_dirs/dssd320_r50_stage-1_voc0712/iter_30000.pth'  # another file: --cfg-options load_from=PATH

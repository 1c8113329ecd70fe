"""Paper B, Table 2, row 13: RefineDet512-R101 with HarmonicDet on COCO, the schedule of refinedet512_r101_coco.py."""
_base_ = ['./refinedet320_r101_coco.py', '../../_base_/losses/harmonic_det.py']
_base_.train_dataloader.dataset.pipeline[5].scale = (512, 512)
_base_.val_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.test_dataloader.dataset.pipeline[1].scale = (512, 512)
train_dataloader = dict(batch_size=5)
train_cfg = dict(max_iters=540000)
_base_.param_scheduler[1].milestones = [400000, 480000]
auto_scale_lr = dict(base_batch_size=20)
model = dict(bbox_head=dict(type='HarmonicRefineDetHead', loss_joint=_base_.harmonic_det))

"""Paper B, Table 2, row 7: RefineDet512-R101 on COCO, 4 GPUs x 5 images.

The paper states no schedule: 540k iterations are those of RefineDet's release (ResNet101_COCO_512.py).
"""
_base_ = './refinedet320_r101_coco.py'
_base_.train_dataloader.dataset.pipeline[5].scale = (512, 512)
_base_.val_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.test_dataloader.dataset.pipeline[1].scale = (512, 512)
train_dataloader = dict(batch_size=5)
train_cfg = dict(max_iters=540000)
_base_.param_scheduler[1].milestones = [400000, 480000]
auto_scale_lr = dict(base_batch_size=20)

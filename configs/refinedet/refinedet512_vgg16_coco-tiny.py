"""RefineDet512 on VGG-16, on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = [
    '../_base_/models/refinedet_vgg16.py',
    '../_base_/datasets/coco_tiny.py',
    '../_base_/datasets/ssd_pipeline.py',
    '../_base_/schedules/sgd_1x_small-set.py',
    '../_base_/runtime.py',
]
_base_.ssd_train_pipeline[5].scale = (512, 512)
_base_.ssd_test_pipeline[1].scale = (512, 512)
train_dataloader = dict(
    batch_size=8, batch_sampler=None, drop_last=True, dataset=dict(pipeline=_base_.ssd_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.ssd_test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1), logger=dict(interval=10))

"""Paper B, Table 2, row 5: SSD512 on ResNet-50-FPN on COCO."""
_base_ = './ssd300_r50_fpn_coco.py'
_base_.train_dataloader.dataset.dataset.pipeline[5].scale = (512, 512)
_base_.val_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.test_dataloader.dataset.pipeline[1].scale = (512, 512)
model = dict(neck=_base_.ssd512_neck, bbox_head=_base_.ssd512_head)

"""Paper B, Table 1, row 8: DSSD512-R50 on VOC07+12, on the schedule of DSSD320."""
_base_ = './dssd320_r50_voc0712.py'
_base_.train_dataloader.dataset.datasets[0].pipeline[5].scale = (512, 512)
_base_.train_dataloader.dataset.datasets[1].pipeline[5].scale = (512, 512)
_base_.val_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.test_dataloader.dataset.pipeline[1].scale = (512, 512)
model = dict(neck=_base_.dssd512_neck, bbox_head=_base_.dssd512_head)

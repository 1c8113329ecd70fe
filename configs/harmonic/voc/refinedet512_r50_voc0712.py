"""Paper B, Table 1, row 10: RefineDet512-R50 on VOC07+12; the release has one schedule for both sizes."""
_base_ = './refinedet320_r50_voc0712.py'
_base_.train_dataloader.dataset.datasets[0].pipeline[5].scale = (512, 512)
_base_.train_dataloader.dataset.datasets[1].pipeline[5].scale = (512, 512)
_base_.val_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.test_dataloader.dataset.pipeline[1].scale = (512, 512)

"""Paper B, Table 1, row 16: RefineDet512-R50 with HarmonicDet on VOC07+12; the ARM is the stock one."""
_base_ = ['./refinedet320_r50_voc0712.py', '../../_base_/losses/harmonic_det.py']
_base_.train_dataloader.dataset.datasets[0].pipeline[5].scale = (512, 512)
_base_.train_dataloader.dataset.datasets[1].pipeline[5].scale = (512, 512)
_base_.val_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.test_dataloader.dataset.pipeline[1].scale = (512, 512)
model = dict(bbox_head=dict(type='HarmonicRefineDetHead', loss_joint=_base_.harmonic_det))

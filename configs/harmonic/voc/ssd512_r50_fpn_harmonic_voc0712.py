"""Paper B, Table 1, row 12: SSD512 on ResNet-50-FPN with HarmonicDet on VOC07+12."""
_base_ = ['./ssd300_r50_fpn_voc0712.py', '../../_base_/losses/harmonic_det.py']
_base_.train_dataloader.dataset.dataset.datasets[0].pipeline[5].scale = (512, 512)
_base_.train_dataloader.dataset.dataset.datasets[1].pipeline[5].scale = (512, 512)
_base_.val_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.test_dataloader.dataset.pipeline[1].scale = (512, 512)
_base_.ssd512_head.anchor_generator.basesize_ratio_range = (0.15, 0.9)
model = dict(
    neck=_base_.ssd512_neck,
    bbox_head=dict(_base_.ssd512_head, type='HarmonicSSDHead', loss_joint=_base_.harmonic_det))

"""SSD300 on ResNet-50-FPN with HarmonicDet, on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = ['../../ssd_resnet_fpn/ssd300_r50_fpn_coco-tiny.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicSSDHead', loss_joint=_base_.harmonic_det))

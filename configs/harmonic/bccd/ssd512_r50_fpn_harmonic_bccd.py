"""SSD512 on ResNet-50-FPN with HarmonicDet, on BCCD (VOC format, three classes)."""
_base_ = ['../../ssd_resnet_fpn/ssd512_r50_fpn_bccd.py', '../../_base_/losses/harmonic_det.py']
model = dict(bbox_head=dict(type='HarmonicSSDHead', loss_joint=_base_.harmonic_det))

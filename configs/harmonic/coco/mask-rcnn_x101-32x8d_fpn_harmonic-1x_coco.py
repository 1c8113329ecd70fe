"""Paper B, Table 2, row 23: Mask R-CNN-X101-32x8d with HarmonicDet on COCO, 1333 x 800.

The table says ResNeXt-101; the text names the 32x8d of RetinaNet, taken to be that of all detectors.
"""
_base_ = ['./mask-rcnn_r50_fpn_harmonic-1x_coco.py', '../../_base_/backbones/x101_32x8d.py']
model = _base_.x101_32x8d

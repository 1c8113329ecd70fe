"""Paper B, Table 2, row 24: multi-scale testing of Mask R-CNN-X101-32x8d with HarmonicDet on COCO; boxes alone.

    python tools/test.py CONFIG work_dirs/mask-rcnn_x101-32x8d_fpn_harmonic-1x_coco/epoch_12.pth --tta

It tests the checkpoint of row 23 and does not train. The paper names no scales: they are those of mmdet's
retinanet_tta, 1333 x 800, half and one and a half of it, each mirrored too.
"""
_base_ = [
    './mask-rcnn_r50_fpn_harmonic-1x_coco.py',
    '../../_base_/backbones/x101_32x8d.py',
    'mmdet::retinanet/retinanet_tta.py',
]
# mmdet merges boxes and refuses masks: the mask branch is left out, and its weights in the checkpoint are passed over.
# Without train_cfg nobody trains a Mask R-CNN without masks.
model = dict(**_base_.x101_32x8d, roi_head=dict(mask_roi_extractor=None, mask_head=None), train_cfg=None)
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator

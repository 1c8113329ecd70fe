"""ResNeXt-101 of 32 groups, 8 wide, in the place of ResNet-50: `model` of mmdet's mask-rcnn_x101-32x8d_fpn_1x_coco.

Its weights come from Caffe2 and BGR images, so the preprocessor belongs to it; its batch norms are not trained.
model = _base_.x101_32x8d
"""
x101_32x8d = dict(
    data_preprocessor=dict(
        mean=[103.530, 116.280, 123.675], std=[57.375, 57.120, 58.395], bgr_to_rgb=False),
    backbone=dict(
        type='ResNeXt',
        depth=101,
        groups=32,
        base_width=8,
        norm_cfg=dict(type='BN', requires_grad=False),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnext101_32x8d')))

"""RefineDet on VGG-16: no batch norm and no prediction modules, as in the release (docs/refinedet.md)."""
_base_ = './refinedet_r50.py'

model = dict(
    # The weights are Caffe's: no division by the standard deviation, as in mmdet's SSD.
    data_preprocessor=dict(std=[1, 1, 1]),
    backbone=dict(
        _delete_=True,
        type='RefineDetVGG',
        depth=16,
        with_last_pool=False,
        ceil_mode=True,
        out_indices=(3, 4),
        out_feature_indices=(22, 29, 34),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://vgg16_caffe')),
    neck=dict(
        _delete_=True,
        type='NormedSSDNeck',
        in_channels=(512, 512, 1024),
        out_channels=(512, 512, 1024, 512),
        level_strides=(2,),
        level_paddings=(1,),
        l2_norm_scales=(10.0, 8.0)),
    transfer=dict(in_channels=(512, 512, 1024, 512), norm_cfg=None),
    arm_head=dict(in_channels=(512, 512, 1024, 512), prediction_planes=None),
    bbox_head=dict(prediction_planes=None))

"""SSD512 on VGG16, the model of mmdet's ssd512_coco (which is not among its `_base_` models)."""
_base_ = 'mmdet::_base_/models/ssd300.py'

model = dict(
    neck=dict(
        out_channels=(512, 1024, 512, 256, 256, 256, 256),
        level_strides=(2, 2, 2, 2, 1),
        level_paddings=(1, 1, 1, 1, 1),
        last_kernel_size=4),
    bbox_head=dict(
        in_channels=(512, 1024, 512, 256, 256, 256, 256),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=512,
            strides=[8, 16, 32, 64, 128, 256, 512],
            basesize_ratio_range=(0.1, 0.9),
            ratios=([2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]))))

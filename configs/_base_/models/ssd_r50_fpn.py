"""SSD300 on ResNet-50-FPN, and what SSD512 changes (docs/ssd_resnet_fpn.md).

FPN's three levels, SSD's extra layers behind them, SSD's anchors.
"""
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1),
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=[
        dict(type='FPN', in_channels=[512, 1024, 2048], out_channels=256, num_outs=3),
        dict(
            type='SSDNeck',
            in_channels=(256, 256, 256),
            out_channels=(256, 256, 256, 256, 256, 256),
            level_strides=(2, 1, 1),
            level_paddings=(1, 0, 0),
            l2_norm_scale=None),
    ],
    bbox_head=dict(
        type='ConfigurableSSDHead',
        num_classes=80,
        in_channels=(256, 256, 256, 256, 256, 256),
        stacked_convs=1,
        feat_channels=256,
        act_cfg=dict(type='ReLU'),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=300,
            strides=[8, 16, 32, 64, 100, 300],
            ratios=([2], [2, 3], [2, 3], [2, 3], [2], [2]),
            basesize_ratio_range=(0.15, 0.9)),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2])),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, ignore_iof_thr=-1,
            gt_max_assign_all=False),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False),
    test_cfg=dict(
        nms_pre=1000, nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.02, max_per_img=200))
# SSD512: one extra layer and one level more. model = dict(neck=_base_.ssd512_neck, bbox_head=_base_.ssd512_head)
ssd512_neck = [
    model['neck'][0],
    dict(
        model['neck'][1],
        out_channels=(256, 256, 256, 256, 256, 256, 256),
        level_strides=(2, 2, 2, 2),
        level_paddings=(1, 1, 1, 1)),
]
ssd512_head = dict(
    in_channels=(256, 256, 256, 256, 256, 256, 256),
    anchor_generator=dict(
        input_size=512,
        strides=[8, 16, 32, 64, 128, 256, 512],
        ratios=([2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]),
        basesize_ratio_range=(0.1, 0.9)))

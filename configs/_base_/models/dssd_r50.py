"""DSSD320 on ResNet-50, and what DSSD512 changes (docs/dssd.md)."""
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
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(1, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=[
        dict(
            type='ResNetExtraLayers',
            in_channels=(512, 2048),
            planes=256,
            kernel_sizes=(2, 2, 3, 3),
            strides=(2, 2, 1, 1)),
        dict(
            type='DeconvolutionNeck',
            in_channels=(512, 2048, 1024, 1024, 1024, 1024),
            channels=512,
            kernel_sizes=(2, 2, 2, 3, 3),
            strides=(2, 2, 2, 1, 1),
            mode='product'),
    ],
    bbox_head=dict(
        type='DSSDHead',
        num_classes=80,
        in_channels=(512, 512, 512, 512, 512, 1024),
        prediction_planes=256,
        kernel_sizes=(5, 5, 3, 3, 3, 3),
        anchor_generator=dict(
            type='CenteredSSDAnchorGenerator',
            scale_major=False,
            strides=[8, 16, 32, 64, 64, 64],
            centers=[(4, 4), (8, 8), (16, 16), (32, 32), (96, 96), (160, 160)],
            min_sizes=[32, 64, 121.6, 179.2, 236.8, 294.4],
            max_sizes=[64, 121.6, 179.2, 236.8, 294.4, 352],
            ratios=([1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3])),
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
    # The release: 400 candidates before NMS, 200 detections.
    test_cfg=dict(
        nms_pre=400, nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.01, max_per_img=200))
# DSSD512: five extra layers that halve the map. model = dict(neck=_base_.dssd512_neck, bbox_head=_base_.dssd512_head)
dssd512_neck = [
    dict(model['neck'][0], kernel_sizes=(2, 2, 2, 2, 2), strides=(2, 2, 2, 2, 2)),
    dict(
        model['neck'][1],
        in_channels=(512, 2048, 1024, 1024, 1024, 1024, 1024),
        kernel_sizes=(2, 2, 2, 2, 2, 2),
        strides=(2, 2, 2, 2, 2, 2)),
]
dssd512_head = dict(
    in_channels=(512, 512, 512, 512, 512, 512, 1024),
    kernel_sizes=(5, 5, 3, 3, 3, 3, 3),
    anchor_generator=dict(
        strides=[8, 16, 32, 64, 128, 256, 512],
        centers=[(4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (128, 128), (256, 256)],
        min_sizes=[20.48, 51.2, 138.24, 225.28, 312.32, 399.36, 486.4],
        max_sizes=[51.2, 138.24, 225.28, 312.32, 399.36, 486.4, 573.44],
        ratios=([1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3], [1.6, 2, 3])))

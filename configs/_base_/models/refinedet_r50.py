"""RefineDet on ResNet-50, for inputs of 320 and 512: its anchors follow from the strides alone (docs/refinedet.md)."""
# Detections: the values of the released scripts, and those of the paper: model = dict(test_cfg=_base_.refinedet_paper)
refinedet_release = dict(nms_pre=1000, max_per_img=500)
refinedet_paper = dict(nms_pre=400, max_per_img=200)

model = dict(
    type='RefineDet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=64),
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
    neck=dict(
        type='ResNetExtraLayers', in_channels=(512, 1024, 2048), planes=128, kernel_sizes=(1,), strides=(2,)),
    transfer=dict(
        type='TransferConnectionNeck', in_channels=(512, 1024, 2048, 512), channels=256, norm_cfg=dict(type='BN')),
    arm_head=dict(
        type='DSSDHead',
        num_classes=1,
        in_channels=(512, 1024, 2048, 512),
        prediction_planes=256,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[1.0, 2.0, 0.5], strides=[8, 16, 32, 64], center_offset=0.5),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2])),
    bbox_head=dict(
        type='RefineDetHead',
        num_classes=80,
        in_channels=(256, 256, 256, 256),
        prediction_planes=256,
        objectness_thr=0.01,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[1.0, 2.0, 0.5], strides=[8, 16, 32, 64], center_offset=0.5),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2])),
    train_cfg=dict(
        assigner=dict(
            # min_pos_iou above 0: a refined anchor may be anywhere, and a box that none overlaps has no positive.
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=1e-6, ignore_iof_thr=-1,
            gt_max_assign_all=False),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False),
    test_cfg=dict(
        nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.01, **refinedet_release))

"""Blocks and hosts that do not fit say so, with the remedy."""

from __future__ import annotations

import pytest
from head_cases import (
    BALANCED_L1,
    FOVEA,
    FOVEA_FOCAL,
    NEUTRAL_CE,
    NEUTRAL_FOCAL,
    RCNN,
    RCNN_STDS,
    RETINA,
    SSD,
    SSD_STDS,
    C,
    build,
)
from mmdet.models.dense_heads import (
    ATSSHead,
    FoveaHead,
    FreeAnchorRetinaHead,
    GARetinaHead,
    RetinaHead,
    SSDHead,
    YOLACTHead,
)
from mmdet.models.roi_heads.bbox_heads import DIIHead, SABLHead, Shared2FCBBoxHead

from balanced_det.heads import AnchorLossMixin, FoveaLossMixin, RoILossMixin, SSDLossMixin, check_heads


@pytest.mark.parametrize(
    ('cfg', 'changes', 'message'),
    [
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_bbox=dict(BALANCED_L1, **RCNN_STDS)),
            r'set loss_bbox.target_stds=\(1.0, 1.0, 1.0, 1.0\)',
        ),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_bbox=BALANCED_L1),
            r'set loss_bbox.target_stds=\(0.1, 0.1, 0.2, 0.2\)',
        ),
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_bbox=BALANCED_L1, reg_decoded_bbox=True),
            'set reg_decoded_bbox=False',
        ),
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_bbox=BALANCED_L1, bbox_coder=dict(type='TBLRBBoxCoder')),
            'bbox_coder is TBLRBBoxCoder',
        ),
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_cls=dict(type='IoUBalancedFocalLoss')),
            r"loss_cls=dict\(type='IoUBalancedFocalLoss', use_sigmoid=True, ...\)",
        ),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=dict(NEUTRAL_CE, scope='image')),
            'set loss_cls.scope="batch"',
        ),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=dict(NEUTRAL_CE, use_sigmoid=True)),
            'scores the background as one more class',
        ),
        (RCNN, dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=NEUTRAL_FOCAL), 'use_sigmoid=False'),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=dict(type='SeesawLoss', num_classes=C)),
            'cannot serve SeesawLoss',
        ),
        (SSD, dict(type='IoUBalancedSSDHead', loss_cls=NEUTRAL_FOCAL), 'scores the background as one more class'),
        (SSD, dict(type='IoUBalancedSSDHead', loss_cls=dict(NEUTRAL_CE, scope='level')), '"batch" or "image"'),
        (
            SSD,
            dict(type='IoUBalancedSSDHead', loss_bbox=BALANCED_L1),
            r'set loss_bbox.target_stds=\(0.1, 0.1, 0.2, 0.2\)',
        ),
        (
            FOVEA,
            dict(type='IoUBalancedFoveaHead', loss_cls=dict(type='IoUBalancedFocalLoss')),
            r"loss_cls=dict\(type='IoUBalancedFocalLoss', use_sigmoid=True, ...\)",
        ),
    ],
)
def test_blocks_that_do_not_fit(cfg, changes, message):
    with pytest.raises(ValueError, match=message):
        build(cfg, **changes)


@pytest.mark.parametrize(
    ('cfg', 'changes', 'message'),
    [
        (RETINA, dict(loss_cls=dict(NEUTRAL_FOCAL, eta=1.5)), 'set the head to its IoU-balanced type'),
        (RCNN, dict(loss_cls=dict(NEUTRAL_CE, eta=1.5)), 'set the head to its IoU-balanced type'),
        (FOVEA, dict(loss_cls=dict(type='IoUBalancedFocalLoss', **FOVEA_FOCAL)), 'set the head to its IoU-balanced'),
        (FOVEA, dict(loss_bbox=BALANCED_L1), 'FoveaBox: IoUBalancedFoveaHead'),
    ],
)
def test_balanced_losses_in_stock_heads_that_cannot_serve_them(cfg, changes, message):
    with pytest.raises(ValueError, match=message):
        check_heads(build(cfg, **changes))


@pytest.mark.parametrize(
    ('cfg', 'changes'),
    [
        (RETINA, dict(loss_bbox=BALANCED_L1)),
        (RETINA, dict(loss_cls=NEUTRAL_FOCAL)),
        (RCNN, dict(loss_bbox=dict(BALANCED_L1, **RCNN_STDS))),
        (FOVEA, dict(type='IoUBalancedFoveaHead', loss_bbox=dict(BALANCED_L1, beta=0.11))),
        (SSD, dict(type='IoUBalancedSSDHead', loss_cls=NEUTRAL_CE, loss_bbox=dict(BALANCED_L1, **SSD_STDS))),
    ],
)
def test_fitting_heads_pass(cfg, changes):
    check_heads(build(cfg, **changes))


@pytest.mark.parametrize(
    ('mixin', 'host', 'method'),
    [
        (AnchorLossMixin, FreeAnchorRetinaHead, 'loss_by_feat is that of FreeAnchorRetinaHead'),
        (AnchorLossMixin, ATSSHead, 'loss_by_feat is that of ATSSHead'),
        (AnchorLossMixin, GARetinaHead, 'loss_by_feat is that of GuidedAnchorHead'),
        (AnchorLossMixin, YOLACTHead, 'loss_by_feat is that of YOLACTHead'),
        (AnchorLossMixin, SSDHead, 'loss_by_feat is that of SSDHead'),
        (AnchorLossMixin, FoveaHead, 'loss_by_feat is that of FoveaHead'),
        (SSDLossMixin, RetinaHead, 'loss_by_feat is that of AnchorHead'),
        (SSDLossMixin, SSDHead, 'loss_by_feat_single is that of SSDHead'),
        (FoveaLossMixin, RetinaHead, 'loss_by_feat is that of AnchorHead'),
        (RoILossMixin, SABLHead, 'loss is that of SABLHead'),
        (RoILossMixin, DIIHead, 'loss_and_target is that of DIIHead'),
    ],
)
def test_hosts_without_the_seam_are_refused(mixin, host, method):
    with pytest.raises(TypeError, match=method):
        type('MyHead', (mixin, host), {})


def test_heads_built_on_a_host_are_hosts_too():
    class MyHost(Shared2FCBBoxHead):
        pass

    class MyHead(RoILossMixin, MyHost):
        pass

    head = MyHead(**{key: value for key, value in RCNN.items() if key != 'type'})
    assert head.state_dict().keys() == build(RCNN).state_dict().keys()

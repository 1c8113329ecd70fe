"""A balanced head makes the host wait for a GPU no more often than the stock head."""

from __future__ import annotations

import pytest
from head_cases import FOVEA, RCNN, RCNN_STDS, RETINA, RPN, SSD, SSD_STDS, build, dense_losses, instances, roi_losses

import harmonic  # noqa: F401  registers the heads
from balanced_det.benchmark.heads import ONLY_ON_CPU
from balanced_det.benchmark.syncs import count_syncs

BALANCED_FOCAL = dict(type='IoUBalancedFocalLoss', use_sigmoid=True)
BALANCED_CE = dict(type='IoUBalancedCrossEntropyLoss')
BALANCED_L1 = dict(type='IoUBalancedSmoothL1Loss')
DENSE = {
    'IoUBalancedRetinaHead': (RETINA, dict(loss_cls=BALANCED_FOCAL, loss_bbox=BALANCED_L1)),
    'IoUBalancedRPNHead': (RPN, dict(loss_cls=dict(BALANCED_CE, use_sigmoid=True), loss_bbox=BALANCED_L1)),
    'IoUBalancedSSDHead': (SSD, dict(loss_cls=BALANCED_CE, loss_bbox=dict(BALANCED_L1, **SSD_STDS))),
    'IoUBalancedFoveaHead': (FOVEA, dict(loss_cls=BALANCED_FOCAL, loss_bbox=BALANCED_L1)),
    'HarmonicRetinaHead': (RETINA, {}),
    'HarmonicSSDHead': (SSD, {}),
    'HarmonicFoveaHead': (FOVEA, {}),
}
ROI = {
    'IoUBalancedShared2FCBBoxHead': dict(loss_cls=BALANCED_CE, loss_bbox=dict(BALANCED_L1, **RCNN_STDS)),
    'HarmonicShared2FCBBoxHead': {},
}


def waits(head, losses_of):
    # On a CPU the fused pass looks at where the positives are; on a GPU a kernel takes its place.
    return sum(count_syncs(lambda: losses_of(head), ignored=ONLY_ON_CPU).values())


def of_images(head):
    return dense_losses(head, instances(labels=[[0, 0], [0]]) if head.num_classes == 1 else instances())


@pytest.mark.parametrize('name', DENSE)
def test_dense_heads(name):
    stock, losses = DENSE[name]
    assert waits(build(stock, type=name, **losses), of_images) <= waits(build(stock), of_images)


@pytest.mark.parametrize('name', ROI)
def test_roi_heads(name):
    assert waits(build(RCNN, type=name, **ROI[name]), roi_losses) <= waits(build(RCNN), roi_losses)

"""The detectors that mmdet lacks: SSD on ResNet-FPN (mmdet's parts), DSSD and RefineDet."""

from balanced_det.models.anchors import CenteredSSDAnchorGenerator
from balanced_det.models.deconvolution import DeconvolutionNeck
from balanced_det.models.dssd_head import DSSDHead
from balanced_det.models.extra_layers import NormedSSDNeck, ResNetExtraLayers
from balanced_det.models.refinedet import RefineDet
from balanced_det.models.refinedet_head import RefinedAnchors, RefineDetHead
from balanced_det.models.transfer import TransferConnectionNeck
from balanced_det.models.vgg import RefineDetVGG

__all__ = [
    'CenteredSSDAnchorGenerator',
    'DSSDHead',
    'DeconvolutionNeck',
    'NormedSSDNeck',
    'RefineDet',
    'RefineDetHead',
    'RefineDetVGG',
    'RefinedAnchors',
    'ResNetExtraLayers',
    'TransferConnectionNeck',
]

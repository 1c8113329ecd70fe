"""RefineDet's VGG-16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.backbones import SSDVGG
from mmdet.registry import MODELS
from torch import nn

POOL5, FC6 = 30, 31  # their places in SSDVGG.features, behind the thirty layers of VGG-16 up to conv5_3


@MODELS.register_module()
class RefineDetVGG(SSDVGG):
    """``SSDVGG`` with fc7 at stride 32: pool5 halves the map, and fc6 has a dilation of 3 in place of 6.

    Maps: conv4_3 (512 channels, stride 8), conv5_3 (512, 16), fc7 (1024, 32).

    Args:
        depth: 16; the places of the layers are those of this depth.
        out_feature_indices: Of the layers whose outputs are the maps.
        **kwargs: As ``SSDVGG``.
    """

    def __init__(self, depth: int = 16, out_feature_indices: Sequence[int] = (22, 29, 34), **kwargs: Any) -> None:
        super().__init__(depth, out_feature_indices=out_feature_indices, **kwargs)
        self.features[POOL5] = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        self.features[FC6] = nn.Conv2d(512, 1024, kernel_size=3, padding=3, dilation=3)

"""Layers behind the backbone: residual blocks on a ResNet, norms on the first maps of a VGG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.necks.ssd_neck import L2Norm, SSDNeck
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from balanced_det.heads.checks import check_num_levels
from balanced_det.models.layers import NormEvalMixin, ProjectedBottleneck


@MODELS.register_module()
class ResNetExtraLayers(NormEvalMixin, BaseModule):
    """Appends residual blocks to the maps of a ResNet, each on the map before it (DSSD: res6 to res10).

    Args:
        in_channels: Channels of each map of the backbone.
        planes: Inner channels of the blocks; each gives four times as many.
        kernel_sizes: Of the first convolution of each block, without padding.
        strides: Of each block.
        norm_cfg: Norm layers.
        norm_eval: Batch-norm layers keep their statistics.
        frozen: So do they, and no parameter learns.
        init_cfg: Initialisation; None: Kaiming.

    Raises:
        ValueError: ``kernel_sizes`` and ``strides`` differ in length.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        planes: int = 256,
        kernel_sizes: Sequence[int] = (2, 2, 3, 3),
        strides: Sequence[int] = (2, 2, 1, 1),
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        frozen: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        init_cfg = init_cfg or dict(type='Kaiming', layer='Conv2d')
        super().__init__(init_cfg, norm_eval=norm_eval, frozen=frozen)
        if len(kernel_sizes) != len(strides):
            raise ValueError(
                f'ResNetExtraLayers: {len(kernel_sizes)} kernel_sizes and {len(strides)} strides; give one of each for '
                'every block'
            )
        self.in_channels = tuple(in_channels)
        self.blocks = nn.ModuleList()
        channels = self.in_channels[-1]
        for kernel_size, stride in zip(kernel_sizes, strides):
            self.blocks.append(
                ProjectedBottleneck(channels, planes, kernel_size=kernel_size, stride=stride, norm_cfg=norm_cfg)
            )
            channels = planes * ProjectedBottleneck.expansion
        self.freeze()

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps of the backbone, and those of the blocks behind them.

        Args:
            feats: Maps (N, C, H, W), finest first.

        Returns:
            The same maps, and one more for each block.

        Raises:
            ValueError: The number of maps is not that of ``in_channels``, or a map is too small for a block.
        """
        check_num_levels(self, feats, len(self.in_channels))
        outs = list(feats)
        for block in self.blocks:
            outs.append(block(outs[-1]))
        return tuple(outs)


@MODELS.register_module()
class NormedSSDNeck(SSDNeck):
    """``SSDNeck`` with an L2 norm on several of the backbone's maps, not on the first alone (RefineDet on VGG-16).

    Args:
        in_channels: As ``SSDNeck``.
        *args: As ``SSDNeck``.
        l2_norm_scales: Initial scale of the norm of each of the first maps.
        **kwargs: As ``SSDNeck``.
    """

    def __init__(
        self, in_channels: Sequence[int], *args: Any, l2_norm_scales: Sequence[float] = (10.0, 8.0), **kwargs: Any
    ) -> None:
        super().__init__(in_channels, *args, l2_norm_scale=None, **kwargs)
        self.l2_norms = nn.ModuleList(L2Norm(channels, scale) for channels, scale in zip(in_channels, l2_norm_scales))

    def init_weights(self) -> None:
        """As ``SSDNeck``; the norms begin at their scales."""
        super().init_weights()
        norms: Any = self.l2_norms
        for norm in norms:
            nn.init.constant_(norm.weight, norm.scale)

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps of the backbone, the first ones normalised, and the extra maps.

        Args:
            feats: Maps (N, C, H, W), finest first.

        Returns:
            As many, and one more for each extra layer.
        """
        normed = [norm(feat) for norm, feat in zip(self.l2_norms, feats)]
        return super().forward([*normed, *feats[len(normed) :]])

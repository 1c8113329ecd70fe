"""DSSD's way back up: deconvolution modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from balanced_det.heads.checks import check_num_levels
from balanced_det.models.layers import NormEvalMixin, check_same_size


class DeconvolutionModule(nn.Module):
    """One step up: ReLU(up-sampled * lateral), after a convolution and two (Fu et al. 2017, Fig. 3).

    Args:
        deep_channels: Of the map above.
        lateral_channels: Of the SSD map of this level.
        channels: Of the result.
        kernel_size: Of the transposed convolution.
        stride: Of the same.
        mode: 'product' or 'sum'.
        norm_cfg: Norm layer of each convolution; the transposed one has none.
    """

    def __init__(
        self,
        deep_channels: int,
        lateral_channels: int,
        channels: int,
        *,
        kernel_size: int,
        stride: int,
        mode: str,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.deconv = nn.ConvTranspose2d(deep_channels, channels, kernel_size, stride)
        self.deep = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None)
        self.lateral = nn.Sequential(
            ConvModule(lateral_channels, channels, 3, padding=1, norm_cfg=norm_cfg),
            ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, upsampled: Tensor, lateral: Tensor) -> Tensor:
        """Both (N, C, H, W), the first as :attr:`deconv` gives it."""
        deep, lateral = self.deep(upsampled), self.lateral(lateral)
        return self.relu(deep * lateral if self.mode == 'product' else deep + lateral)


@MODELS.register_module()
class DeconvolutionNeck(NormEvalMixin, BaseModule):
    """Deconvolution modules from the deepest map up to the finest (DSSD).

    Level k is the map of level k joined with what the module above gave. The deepest map passes unchanged.

    Args:
        in_channels: Channels of each map, finest first.
        channels: Of the results, but for the deepest.
        kernel_sizes: Of the transposed convolution into each level, finest first; those of the extra layers that
            made the level above, so that the sizes come back.
        strides: Of the same.
        mode: How the two maps are joined: 'product', as the release has it, or 'sum'.
        norm_cfg: Norm layers.
        norm_eval: Batch-norm layers keep their statistics.
        frozen: So do they, and no parameter learns.
        init_cfg: Initialisation; None: Kaiming.

    Raises:
        ValueError: Another mode, or lengths that do not fit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 512,
        kernel_sizes: Sequence[int] = (2, 2, 2, 3, 3),
        strides: Sequence[int] = (2, 2, 2, 1, 1),
        mode: str = 'product',
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        frozen: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        init_cfg = init_cfg or dict(type='Kaiming', layer=['Conv2d', 'ConvTranspose2d'])
        super().__init__(init_cfg, norm_eval=norm_eval, frozen=frozen)
        if mode not in ('product', 'sum'):
            raise ValueError(f"DeconvolutionNeck: mode is 'product' or 'sum', got {mode!r}")
        if not len(kernel_sizes) == len(strides) == len(in_channels) - 1:
            raise ValueError(
                f'DeconvolutionNeck: {len(in_channels)} in_channels need {len(in_channels) - 1} kernel_sizes and '
                f'strides, one for each step up; got {len(kernel_sizes)} and {len(strides)}'
            )
        self.in_channels = tuple(in_channels)
        self.multiple = 8 * math.prod(strides)  # if the finest map has a stride of 8, as DSSD's
        deeper = (*[channels] * (len(in_channels) - 2), in_channels[-1])
        self.modules_up = nn.ModuleList(
            DeconvolutionModule(
                above,
                below,
                channels,
                kernel_size=kernel_size,
                stride=stride,
                mode=mode,
                norm_cfg=norm_cfg or dict(type='BN'),
            )
            for above, below, kernel_size, stride in zip(deeper, in_channels, kernel_sizes, strides)
        )
        self.freeze()

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps of every level with the context of the levels above.

        Args:
            feats: Maps (N, C, H, W), finest first.

        Returns:
            As many maps of the same sizes.

        Raises:
            ValueError: The number of maps is not that of ``in_channels``, or their sizes do not fit.
        """
        check_num_levels(self, feats, len(self.in_channels))
        outs = [feats[-1]]
        for level in reversed(range(len(self.modules_up))):
            module: Any = self.modules_up[level]
            upsampled = module.deconv(outs[0])
            check_same_size(self, level, feats[level], upsampled, self.multiple)
            outs.insert(0, module(upsampled, feats[level]))
        return tuple(outs)

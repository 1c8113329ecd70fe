"""RefineDet's transfer connection blocks: from the maps of the anchor refinement to those of the detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule, build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from balanced_det.heads.checks import check_num_levels
from balanced_det.models.layers import check_same_size


class TransferConnectionBlock(nn.Module):
    """One level: ReLU(conv(ReLU(conv(source))) + deconv(above)), and one more convolution (Zhang et al. 2018, Fig. 2).

    The deepest block has no map above; it is three convolutions in a row.

    Args:
        in_channels: Of the source map.
        channels: Of the result and of the map above.
        has_above: Whether there is a map above.
        norm_cfg: Norm layer of each convolution, or None.
    """

    def __init__(self, in_channels: int, channels: int, *, has_above: bool, norm_cfg: dict | None) -> None:
        super().__init__()
        self.source = nn.Sequential(
            ConvModule(in_channels, channels, 3, padding=1, norm_cfg=norm_cfg),
            ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None),
        )
        self.relu = nn.ReLU(inplace=True)
        self.out = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.deconv = None
        if has_above:
            deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=norm_cfg is None)
            norm = [build_norm_layer(norm_cfg, channels)[1]] if norm_cfg else []
            self.deconv = nn.Sequential(deconv, *norm)

    def forward(self, source: Tensor, upsampled: Tensor | None) -> Tensor:
        """Source (N, C, H, W), and the map above as :attr:`deconv` gives it."""
        joined = self.source(source)
        if upsampled is not None:
            joined = joined + upsampled
        return self.out(self.relu(joined))


@MODELS.register_module()
class TransferConnectionNeck(BaseModule):
    """A transfer connection block for each source map, deepest first.

    Args:
        in_channels: Channels of each source map, finest first.
        channels: Of the results.
        norm_cfg: Norm layer of each convolution; None for none, as the release has it on VGG-16.
        init_cfg: Initialisation; None: Xavier.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            init_cfg or dict(type='Xavier', layer=['Conv2d', 'ConvTranspose2d'], distribution='uniform', bias=0)
        )
        self.in_channels = tuple(in_channels)
        self.blocks = nn.ModuleList(
            TransferConnectionBlock(source, channels, has_above=level < len(in_channels) - 1, norm_cfg=norm_cfg)
            for level, source in enumerate(in_channels)
        )

    def forward(self, sources: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps for the detection.

        Args:
            sources: Maps (N, C, H, W), finest first; each has twice the size of the next.

        Returns:
            As many maps of the same sizes.

        Raises:
            ValueError: The number of maps is not that of ``in_channels``, or their sizes do not fit.
        """
        check_num_levels(self, sources, len(self.in_channels))
        outs: list[Tensor] = []
        for level in reversed(range(len(sources))):
            block: Any = self.blocks[level]
            upsampled = None
            if block.deconv is not None:
                upsampled = block.deconv(outs[0])
                check_same_size(self, level, sources[level], upsampled, 64)
            outs.insert(0, block(sources[level], upsampled))
        return tuple(outs)

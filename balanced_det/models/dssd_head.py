"""The head of DSSD: SSD's, with a prediction module before the predictors of each level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from balanced_det.heads import ConfigurableSSDHead
from balanced_det.models.layers import NormEvalMixin, ProjectedBottleneck


@MODELS.register_module()
class DSSDHead(NormEvalMixin, ConfigurableSSDHead):
    """``SSDHead`` with prediction module (c) of DSSD: a residual block before the predictors (Fu et al. 2017, Fig. 2).

    The block of a level serves its scores and its boxes. RefineDet on a ResNet has the same in both of its heads.

    Args:
        num_classes: Number of classes without the background.
        in_channels: Channels of each map.
        prediction_planes: Inner channels of the blocks, which give four times as many; None: no blocks, as in SSD.
        kernel_sizes: Of the predictors, for each level or for all.
        block_norm_cfg: Norm layers of the blocks; None: batch norm.
        norm_eval: Batch-norm layers keep their statistics.
        frozen: So do they, and no parameter learns.
        **kwargs: As ``SSDHead``, without towers, and the blocks ``loss_cls`` and ``loss_bbox``.

    Raises:
        ValueError: The lengths of ``in_channels``, ``kernel_sizes`` and the anchors' levels differ, or towers are set.
    """

    def __init__(
        self,
        num_classes: int = 80,
        in_channels: Sequence[int] = (512, 512, 512, 512, 512, 1024),
        prediction_planes: int | None = 256,
        kernel_sizes: int | Sequence[int] = 3,
        block_norm_cfg: dict | None = None,
        norm_eval: bool = False,
        frozen: bool = False,
        **kwargs: Any,
    ) -> None:
        levels = len(in_channels)
        # _init_layers, which the host calls, reads it.
        self.kernel_sizes = (kernel_sizes,) * levels if isinstance(kernel_sizes, int) else tuple(kernel_sizes)
        if len(self.kernel_sizes) != levels:
            raise ValueError(
                f'{type(self).__name__}: {levels} in_channels and {len(self.kernel_sizes)} kernel_sizes; give one for '
                'each level, or one number for all'
            )
        channels = in_channels
        if prediction_planes is not None:
            channels = (prediction_planes * ProjectedBottleneck.expansion,) * levels
        super().__init__(num_classes=num_classes, in_channels=channels, norm_eval=norm_eval, frozen=frozen, **kwargs)
        self.prediction_modules = None
        if prediction_planes is not None:
            self.prediction_modules = nn.ModuleList(
                ProjectedBottleneck(source, prediction_planes, norm_cfg=block_norm_cfg) for source in in_channels
            )
        self.freeze()

    def _init_layers(self) -> None:
        """One convolution for the scores and one for the boxes of each level."""
        if self.stacked_convs or self.use_depthwise:
            raise ValueError(
                f'{type(self).__name__} has prediction modules in place of towers: leave out stacked_convs and '
                'use_depthwise'
            )
        self.cls_convs = nn.ModuleList()
        self.reg_convs = nn.ModuleList()
        for channels, priors, kernel_size in zip(self.in_channels, self.num_base_priors, self.kernel_sizes):
            padding = kernel_size // 2
            self.cls_convs.append(nn.Conv2d(channels, priors * self.cls_out_channels, kernel_size, padding=padding))
            self.reg_convs.append(nn.Conv2d(channels, priors * 4, kernel_size, padding=padding))

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and boxes of each level.

        Args:
            feats: Maps (N, C, H, W), finest first.

        Returns:
            Scores (N, anchors * (classes + 1), H, W) and deltas (N, anchors * 4, H, W).
        """
        if self.prediction_modules is not None and len(feats) == len(self.prediction_modules):
            feats = tuple(module(feat) for module, feat in zip(self.prediction_modules, feats))
        return super().forward(feats)  # which refuses another number of maps

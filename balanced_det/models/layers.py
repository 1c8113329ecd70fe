"""What the parts of these detectors share: a bottleneck, and norm layers that can be frozen."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_norm_layer
from mmdet.models.backbones.resnet import Bottleneck
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class ProjectedBottleneck(Bottleneck):
    """The residual block of DSSD and RefineDet (Caffe: ResBody): a bottleneck whose shortcut is a convolution.

    mmdet's Caffe-style ``Bottleneck``, with a first convolution and a shortcut of any kernel size, without padding.
    Output: ``4 * planes`` channels, of size ``(size - kernel_size) // stride + 1``.

    Args:
        in_channels: Channels of the input.
        planes: Channels of the two inner maps.
        kernel_size: Of the first convolution and of the shortcut.
        stride: Of the same two.
        norm_cfg: Norm layer of each convolution.
    """

    def __init__(
        self, in_channels: int, planes: int, *, kernel_size: int = 1, stride: int = 1, norm_cfg: dict | None = None
    ) -> None:
        norm_cfg = norm_cfg or dict(type='BN')
        out_channels = planes * self.expansion
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, bias=False),
            build_norm_layer(norm_cfg, out_channels)[1],
        )
        super().__init__(in_channels, planes, stride, downsample=shortcut, style='caffe', norm_cfg=norm_cfg)
        self.conv1 = nn.Conv2d(in_channels, planes, kernel_size, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The map behind the block.

        Args:
            x: (N, in_channels, H, W).

        Returns:
            (N, 4 * planes, H', W').

        Raises:
            ValueError: The map is smaller than the kernel, or a batch norm would have to learn from one value.
        """
        kernel_size, stride = self.conv1.kernel_size[0], self.conv1.stride[0]
        height, width = x.shape[-2:]
        sides = [(side - kernel_size) // stride + 1 for side in (height, width)]
        if min(sides) < 1:
            raise ValueError(
                f'ProjectedBottleneck: a kernel of {kernel_size} has a map of {height} x {width} before it: '
                'the input is too small, or there are too many blocks (kernel_sizes, strides)'
            )
        # SyncBatchNorm may find more values on the other GPUs.
        local = isinstance(self.norm1, _BatchNorm) and not isinstance(self.norm1, nn.SyncBatchNorm)
        if local and self.norm1.training and len(x) == 1 and sides == [1, 1]:
            raise ValueError(
                'ProjectedBottleneck: a batch norm cannot train on one value, a map of 1 x 1 of one image: set '
                'train_dataloader.batch_size to 2 or more (and drop_last=True, if the last batch has one image), or in '
                "each neck and head norm_eval=True or norm_cfg (head: block_norm_cfg) = dict(type='GN', num_groups=32)"
            )
        return super().forward(x)


class NormEvalMixin:
    """A module whose batch-norm layers can keep their statistics while it trains.

    Args:
        *args: The host's.
        norm_eval: Keep the statistics.
        frozen: Keep them, and learn nothing at all.
        **kwargs: The host's.
    """

    def __init__(self, *args: Any, norm_eval: bool = False, frozen: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.norm_eval = norm_eval or frozen
        self.frozen = frozen

    def freeze(self) -> None:
        """Take the parameters out of the training, if the module is frozen; to be called when it has them all."""
        if self.frozen:
            for parameter in self.parameters():  # type: ignore[attr-defined]
                parameter.requires_grad = False

    def train(self, mode: bool = True) -> Any:
        """As ``nn.Module.train``, batch-norm layers with ``norm_eval`` excepted."""
        super().train(mode)  # type: ignore[misc]
        if self.norm_eval:
            for module in self.modules():  # type: ignore[attr-defined]
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def check_same_size(module: nn.Module, level: int, lateral: Tensor, upsampled: Tensor, multiple: int) -> None:
    """A map and the up-sampled map of the level above must have the same size.

    Args:
        module: The module, for the message.
        level: Index of the map.
        lateral: The map, (N, C, H, W).
        upsampled: The map above it, up-sampled.
        multiple: An input size whose multiples fit.

    Raises:
        ValueError: They have not.
    """
    if lateral.shape[-2:] != upsampled.shape[-2:]:
        height, width = lateral.shape[-2:]
        up_height, up_width = upsampled.shape[-2:]
        raise ValueError(
            f'{type(module).__name__}: the map of level {level} is {height} x {width}, the up-sampled one of level '
            f'{level + 1} is {up_height} x {up_width}. The strides must divide the input: give it sides that are '
            f'multiples of {multiple} pixels (scale of Resize with keep_ratio=False, or '
            f'data_preprocessor.pad_size_divisor={multiple})'
        )

"""SSD's anchors at centres of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.task_modules.prior_generators import SSDAnchorGenerator
from mmdet.registry import TASK_UTILS


@TASK_UTILS.register_module()
class CenteredSSDAnchorGenerator(SSDAnchorGenerator):
    """``SSDAnchorGenerator`` for maps that were made without padding: the first anchor of each is where one says.

    Stock anchors begin half a stride from the border of the image. A 3 x 3 convolution without padding moves the first
    cell of its map by one stride.

    Args:
        *args: As ``SSDAnchorGenerator``.
        centers: (x, y) of the first anchors of each level, in pixels.
        **kwargs: As ``SSDAnchorGenerator``.

    Raises:
        ValueError: There are not as many centres as strides.
    """

    def __init__(self, *args: Any, centers: Sequence[tuple[float, float]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(centers) != len(self.strides):
            raise ValueError(
                f'anchor_generator.centers has {len(centers)} entries and strides {len(self.strides)}: give one of '
                'each for every level'
            )
        self.centers = [tuple(center) for center in centers]
        self.base_anchors = self.gen_base_anchors()

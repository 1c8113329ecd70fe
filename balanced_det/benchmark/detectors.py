"""Detectors with their stock losses and with those of each method, and random data for them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from balanced_det.analysis.runs import TOOLS
from balanced_det.swap import METHODS, swap_config

LOSSES = ('stock', *METHODS)
# Smooth L1 in place of mmdet's L1 where the papers have it: what is compared differs in nothing but the balance.
MODELS_OF = {
    'RetinaNet': 'retinanet_r50_fpn_smooth-l1.py',
    'FoveaBox': 'fovea_r50_fpn.py',
    'SSD300': 'mmdet::_base_/models/ssd300.py',
    'SSD512': 'ssd512.py',
    'Faster R-CNN': 'faster-rcnn_r50_fpn_smooth-l1.py',
}
FOLDER = TOOLS.parent / 'configs' / '_base_' / 'models'


def detector(name: str, losses: str) -> Config:
    """The model of a detector, without pretrained weights.

    Args:
        name: A key of :data:`MODELS_OF`.
        losses: One of :data:`LOSSES`: 'stock', or a method, whose package must be imported.
    """
    init_default_scope('mmdet')
    base = MODELS_OF[name]
    cfg = Config.fromstring(f'_base_ = {base if "::" in base else str(FOLDER / base)!r}', '.py')
    if losses != 'stock':
        cfg = swap_config(cfg, losses)
    return without_weights(cfg)


def without_weights(cfg: Config) -> Config:
    """The same config; nothing in its model is initialised from a file. Changes it in place."""
    for block in _blocks(cfg.model):
        init = block.get('init_cfg')
        if isinstance(init, list):
            block.init_cfg = [one for one in init if one.get('type') != 'Pretrained']
        elif init and init.get('type') == 'Pretrained':
            block.init_cfg = None
    return cfg


def random_batch(size: int, batch_size: int, boxes: int, num_classes: int) -> dict:
    """Images of noise with boxes of 1/16 to 1/2 of their side."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8) for _ in range(batch_size)]
    samples = []
    for _ in images:
        sides = size * (1 / 16 + torch.rand(boxes, 2, generator=generator) * 7 / 16)
        corners = torch.rand(boxes, 2, generator=generator) * (size - sides)
        labels = torch.randint(0, num_classes, (boxes,), generator=generator)
        sample = DetDataSample(
            metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0)),
            gt_instances=InstanceData(bboxes=torch.cat([corners, corners + sides], dim=1), labels=labels),
        )
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def _blocks(node: object) -> Iterator:
    """The blocks of a config below and with this one."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _blocks(child)

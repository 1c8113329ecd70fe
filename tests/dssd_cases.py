"""Small DSSDs, random weights for them, parameter counts by hand, and whole one-stage detectors."""

from __future__ import annotations

from pathlib import Path

import torch
from head_cases import SSD, C
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch.nn.modules.batchnorm import _BatchNorm

import balanced_det.models  # noqa: F401  registers them

MODEL_CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / '_base_' / 'models'

# Two levels, as the features of head_cases; the second as if made by a convolution without padding.
RATIOS = (1.6, 2, 3)
SIZES = ((10, 24), (24, 48))
CENTERS = (4, 16)
DSSD = dict(
    SSD,
    type='DSSDHead',
    prediction_planes=2,
    kernel_sizes=(5, 3),
    anchor_generator=dict(
        type='CenteredSSDAnchorGenerator',
        scale_major=False,
        strides=[8, 16],
        centers=[(center, center) for center in CENTERS],
        min_sizes=[low for low, _ in SIZES],
        max_sizes=[high for _, high in SIZES],
        ratios=[RATIOS, RATIOS],
    ),
    train_cfg=dict(SSD['train_cfg'], smoothl1_beta=1.0),
)


def model_config(tmp_path, name, change=''):
    """A config of `configs/_base_/models` with a line of change, as a config of a user has it."""
    path = tmp_path / 'config.py'
    init_default_scope('mmdet')
    path.write_text(f'_base_ = {str(MODEL_CONFIGS / name)!r}\n{change}\n')
    return Config.fromfile(path).model


def randomize(module):
    """Double precision, random parameters, and statistics that are not those of a fresh batch norm."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
        for norm in module.modules():
            if isinstance(norm, _BatchNorm):
                norm.weight.uniform_(0.5, 1.5)
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
    return module


def maps(channels, sizes, images=2, **kwargs):
    return [torch.randn(images, c, size, size, **kwargs) for c, size in zip(channels, sizes)]


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


# -------------------------------------------------------------------------------- parameters, layer by layer


def conv(source, target, kernel, bias=False):
    return source * target * kernel * kernel + (target if bias else 0)


def conv_bn(source, target, kernel):
    """A convolution without bias, and the scale and shift of a batch norm."""
    return conv(source, target, kernel) + 2 * target


def residual_block(source, planes, kernel=1):
    """Three convolutions and the shortcut, each with a batch norm."""
    target = 4 * planes
    return (
        conv_bn(source, planes, kernel)
        + conv_bn(planes, planes, 3)
        + conv_bn(planes, target, 1)
        + conv_bn(source, target, kernel)
    )


def resnet_parameters(depth):
    """mmdet's own count."""
    with torch.device('meta'):
        return parameters(MODELS.build(dict(type='ResNet', depth=depth)))


# ---------------------------------------------------------------------------------------- whole detectors


def build_on_meta(cfg):
    """A detector without memory for its weights, for shapes and counts."""
    with torch.device('meta'):
        return MODELS.build(cfg).eval()


def shapes_on_meta(model, size):
    """Sides of the maps that the head gets, and the number of anchors that its scores stand for."""
    with torch.device('meta'):
        feats = model.extract_feat(torch.zeros(1, 3, size, size))
        scores, deltas = model.bbox_head(feats)
    columns = model.bbox_head.cls_out_channels
    assert [tuple(level.shape[-2:]) for level in scores] == [tuple(feat.shape[-2:]) for feat in feats]
    assert [level.numel() // columns for level in scores] == [level.numel() // 4 for level in deltas]
    return [tuple(feat.shape[-2:]) for feat in feats], sum(level.numel() // columns for level in scores)


def images(size, boxes=((40.0, 60, 150, 200), (10.0, 10, 40, 90)), count=2):
    """Images of noise and their samples: the boxes are in the first image, the others have none."""
    meta = dict(img_shape=(size, size), ori_shape=(size, size), batch_input_shape=(size, size), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=dict(meta, pad_shape=(size, size))) for _ in range(count)]
    rows = [torch.tensor(boxes if not index else []).reshape(-1, 4) for index in range(count)]
    for sample, own in zip(samples, rows):
        sample.gt_instances = InstanceData(bboxes=own, labels=torch.arange(len(own)) % C)
    return torch.randn(count, 3, size, size), samples


def train_step(model, size, **kwargs):
    """Losses of a step in training, with the gradient in the parameters."""
    losses = model.train().loss(*images(size, **kwargs))
    total, logged = model.parse_losses(losses)
    total.backward()
    return logged


def without_gradient(model):
    """Names of parameters that should learn and cannot."""
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning
    return [name for name, parameter in learning if parameter.grad is None or not parameter.grad.isfinite().all()]

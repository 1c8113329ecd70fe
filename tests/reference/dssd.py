"""DSSD's forward pass from a state dict, layer by layer, in float64 (Fu et al. 2017, Fig. 3, 4; the Caffe release)."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def part(state, prefix):
    """The entries under a prefix, without it, in float64."""
    return {key[len(prefix) :]: value.double() for key, value in state.items() if key.startswith(prefix)}


def batch_norm(x, state, training):
    """Statistics of the batch over images and places, or the kept ones."""
    mean, var = state['running_mean'], state['running_var']
    if training:
        mean = x.mean(dim=(0, 2, 3))
        var = ((x - mean[:, None, None]) ** 2).mean(dim=(0, 2, 3))
    rows = [value[:, None, None] for value in (mean, var, state['weight'], state['bias'])]
    return (x - rows[0]) / torch.sqrt(rows[1] + 1e-5) * rows[2] + rows[3]


def conv_norm(x, state, conv, norm, training, stride=1, padding=0):
    x = F.conv2d(x, state[f'{conv}.weight'], stride=stride, padding=padding)
    return batch_norm(x, part(state, f'{norm}.'), training)


def residual_block(x, state, stride, training):
    """ResBody: 1x1 (or k x k), 3x3, 1x1, and a shortcut with the kernel and the stride of the first."""
    out = F.relu(conv_norm(x, state, 'conv1', 'bn1', training, stride))
    out = F.relu(conv_norm(out, state, 'conv2', 'bn2', training, padding=1))
    out = conv_norm(out, state, 'conv3', 'bn3', training)
    return F.relu(out + conv_norm(x, state, 'downsample.0', 'downsample.1', training, stride))


def extra_layers(feats, state, strides, training):
    outs = list(feats)
    for index, stride in enumerate(strides):
        outs.append(residual_block(outs[-1], part(state, f'blocks.{index}.'), stride, training))
    return outs


def deconvolution_module(deep, lateral, state, stride, mode, training):
    """Up, then a convolution; the lateral map through two; a product or a sum; a ReLU at the end and one in between."""
    up = F.conv_transpose2d(deep, state['deconv.weight'], state['deconv.bias'], stride=stride)
    up = conv_norm(up, state, 'deep.conv', 'deep.bn', training, padding=1)
    side = F.relu(conv_norm(lateral, state, 'lateral.0.conv', 'lateral.0.bn', training, padding=1))
    side = conv_norm(side, state, 'lateral.1.conv', 'lateral.1.bn', training, padding=1)
    return F.relu({'product': up * side, 'sum': up + side}[mode])


def neck(feats, state, strides, mode, training):
    """From the deepest map, which passes, up to the finest."""
    outs = {len(feats) - 1: feats[-1]}
    for level in range(len(feats) - 2, -1, -1):
        module = part(state, f'modules_up.{level}.')
        outs[level] = deconvolution_module(outs[level + 1], feats[level], module, strides[level], mode, training)
    return [outs[level] for level in range(len(feats))]


def head(feats, state, training):
    """Prediction module (c), then the predictors, whose kernels keep the size of the map."""
    scores, deltas = [], []
    for level, feat in enumerate(feats):
        shared = residual_block(feat, part(state, f'prediction_modules.{level}.'), 1, training)
        for outs, name in ((scores, 'cls_convs'), (deltas, 'reg_convs')):
            weight, bias = (state[f'{name}.{level}.{what}'].double() for what in ('weight', 'bias'))
            outs.append(F.conv2d(shared, weight, bias, padding=(weight.shape[-1] - 1) // 2))
    return scores, deltas

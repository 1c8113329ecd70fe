"""RefineDet's network in float64 with torch's functions, from a state dict; batch norms with their statistics."""

from __future__ import annotations

import torch
import torch.nn.functional as F

VGG16 = (64, 64, 'pool', 128, 128, 'pool', 256, 256, 256, 'pool', 512, 512, 512, 'pool', 512, 512, 512)


class Network:
    """Layers by their names in a state dict; remembers which it has used."""

    def __init__(self, state):
        self.state = {name: value.double() for name, value in state.items()}
        self.used = set()

    def get(self, name):
        self.used.add(name)
        return self.state[name]

    def bias(self, name):
        return self.get(f'{name}.bias') if f'{name}.bias' in self.state else None

    def conv(self, name, x, **kwargs):
        return F.conv2d(x, self.get(f'{name}.weight'), self.bias(name), **kwargs)

    def norm(self, name, x):
        """Nothing where there is no such layer."""
        if f'{name}.weight' not in self.state:
            return x
        mean, var, weight, bias = (
            self.get(f'{name}.{key}')[:, None, None] for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def conv_norm(self, name, x):
        return self.norm(f'{name}.bn', self.conv(f'{name}.conv', x, padding=1))

    def transfer(self, prefix, sources):
        """Fig. 2 of the paper; the deepest level: three convolutions in a row."""
        above, outs = None, []
        for level in (3, 2, 1, 0):
            block = f'{prefix}.blocks.{level}'
            x = self.conv_norm(f'{block}.source.0', sources[level]).clamp(min=0)
            x = self.conv_norm(f'{block}.source.1', x)
            if above is not None:
                name = f'{block}.deconv.0'
                up = F.conv_transpose2d(above, self.get(f'{name}.weight'), self.bias(name), stride=2)
                x = x + self.norm(f'{block}.deconv.1', up)
            above = self.conv_norm(f'{block}.out', x.clamp(min=0)).clamp(min=0)
            outs.insert(0, above)
        return outs

    def bottleneck(self, name, x, stride=1):
        """1 x 1, 3 x 3, 1 x 1, and a 1 x 1 shortcut; the first and the shortcut take the stride."""
        y = self.norm(f'{name}.bn1', self.conv(f'{name}.conv1', x, stride=stride)).clamp(min=0)
        y = self.norm(f'{name}.bn2', self.conv(f'{name}.conv2', y, padding=1)).clamp(min=0)
        y = self.norm(f'{name}.bn3', self.conv(f'{name}.conv3', y))
        shortcut = self.norm(f'{name}.downsample.1', self.conv(f'{name}.downsample.0', x, stride=stride))
        return (y + shortcut).clamp(min=0)

    def head(self, name, maps):
        """Scores and deltas of each level, behind a prediction module if there is one."""
        if f'{name}.prediction_modules.0.conv1.weight' in self.state:
            maps = [self.bottleneck(f'{name}.prediction_modules.{i}', x) for i, x in enumerate(maps)]
        return tuple(
            [self.conv(f'{name}.{kind}_convs.{i}', x, padding=1) for i, x in enumerate(maps)] for kind in ('cls', 'reg')
        )

    def detector(self, maps):
        """Outputs of both heads, of the backbone's three maps."""
        sources = [*maps, self.bottleneck('neck.blocks.0', maps[-1], stride=2)]
        return self.head('arm_head', sources), self.head('bbox_head', self.transfer('transfer', sources))

    def vgg(self, x):
        """conv4_3, conv5_3 and fc7 behind their ReLUs."""
        index, outs = 0, []
        for width in VGG16:
            if width == 'pool':
                x, index = F.max_pool2d(x, 2, 2), index + 1
            else:
                x, index = self.conv(f'features.{index}', x, padding=1).clamp(min=0), index + 2
                outs.append(x)
        x = F.max_pool2d(x, 2, 2)
        x = self.conv('features.31', x, padding=3, dilation=3).clamp(min=0)
        fc7 = self.conv('features.33', x).clamp(min=0)
        return outs[9], outs[12], fc7

    def vgg_neck(self, maps):
        """L2 norms on the first two maps, and conv6_2."""
        normed = [
            x / x.pow(2).sum(dim=1, keepdim=True).sqrt() * self.get(f'l2_norms.{i}.weight')[:, None, None]
            for i, x in enumerate(maps[:2])
        ]
        x = self.conv('extra_layers.0.0.conv', maps[2]).clamp(min=0)
        return *normed, maps[2], self.conv('extra_layers.0.1.conv', x, stride=2, padding=1).clamp(min=0)


def randomized(module):
    """The module in float64, its norms with statistics and affine parameters of their own."""
    generator = torch.Generator().manual_seed(5)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.bias):
                tensor.data.normal_(generator=generator)
            for tensor in (layer.running_var, layer.weight):
                tensor.data.uniform_(0.5, 2.0, generator=generator)
    return module.double().eval()

"""The block, the extra layers and the way up: against naive forwards, frozen, and on maps that do not fit."""

from __future__ import annotations

import pytest
import torch
from dssd_cases import maps, parameters, randomize, residual_block
from mmdet.registry import MODELS
from reference import dssd as reference
from torch import nn

from balanced_det.models.layers import ProjectedBottleneck, check_same_size

GN = dict(type='GN', num_groups=1)
CHAINS = {320: ((2, 2, 3, 3), (2, 2, 1, 1)), 512: ((2,) * 5, (2,) * 5)}


def extra_layers(chain=320, **kwargs):
    kernel_sizes, strides = CHAINS[chain]
    block = dict(type='ResNetExtraLayers', in_channels=(3, 5), planes=2, kernel_sizes=kernel_sizes, strides=strides)
    return MODELS.build({**block, **kwargs})


def neck(channels=(3, 5, 8, 8, 8, 8), **kwargs):
    return MODELS.build(dict(type='DeconvolutionNeck', in_channels=channels, channels=4, **kwargs))


# -------------------------------------------------------------------------------------------------- the block


@pytest.mark.parametrize(('kernel', 'stride', 'size'), [(1, 1, 7), (2, 2, 7), (3, 1, 5), (1, 2, 7)])
@pytest.mark.parametrize('training', [True, False])
def test_block_equals_its_reference(kernel, stride, size, training):
    block = randomize(ProjectedBottleneck(3, 2, kernel_size=kernel, stride=stride)).train(training)
    x = torch.randn(2, 3, size, size).double()
    expected = reference.residual_block(x, reference.part(block.state_dict(), ''), stride, training)
    assert expected.shape[1:] == (8, (size - kernel) // stride + 1, (size - kernel) // stride + 1)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize('kernel', [1, 2, 3])
def test_block_parameters_by_hand(kernel):
    assert parameters(ProjectedBottleneck(7, 2, kernel_size=kernel)) == residual_block(7, 2, kernel)
    # 7*2*k*k + 2*2*9 + 2*8 + 7*8*k*k, and twice 2 + 2 + 8 + 8
    assert residual_block(7, 2, kernel) == 70 * kernel**2 + 52 + 40


def test_block_parameters_of_res6():
    # 2048 -> 256 and 2048 -> 1024, k2: 2 097 152, 8 388 608; 256 -> 256, k3: 589 824; 256 -> 1024: 262 144; norms 5120
    assert parameters(ProjectedBottleneck(2048, 256, kernel_size=2)) == 2097152 + 589824 + 262144 + 8388608 + 5120


@pytest.mark.parametrize(('sides', 'kernel'), [((1, 5), 2), ((5, 2), 3)])
def test_map_smaller_than_the_kernel(sides, kernel):
    block = ProjectedBottleneck(3, 2, kernel_size=kernel)
    with pytest.raises(
        ValueError, match=f'a kernel of {kernel} has a map of {sides[0]} x {sides[1]} before it: the input'
    ):
        block(torch.randn(2, 3, *sides))


def test_batch_norm_cannot_learn_from_one_value():
    block, x = ProjectedBottleneck(3, 2, kernel_size=3), torch.randn(1, 3, 3, 3)
    with pytest.raises(ValueError, match='batch norm cannot train on one value'):
        block(x)
    # Enough: a second image, a second place, kept statistics, another norm.
    assert block(torch.randn(2, 3, 3, 3)).shape == (2, 8, 1, 1)
    assert block(torch.randn(1, 3, 3, 4)).shape == (1, 8, 1, 2)
    assert ProjectedBottleneck(3, 2, kernel_size=3, norm_cfg=GN)(x).shape == (1, 8, 1, 1)
    assert block.eval()(x).shape == (1, 8, 1, 1)


def test_synchronised_batch_norm_is_left_to_torch():
    # On several GPUs one image on each is enough.
    block = ProjectedBottleneck(3, 2, kernel_size=3, norm_cfg=dict(type='SyncBN'))
    with pytest.raises(ValueError, match=r'Expected more than 1 value|SyncBatchNorm expected input tensor'):
        block(torch.randn(1, 3, 3, 3))


# -------------------------------------------------------------------------------- extra layers and the way up


@pytest.mark.parametrize(('chain', 'sizes'), [(320, [40, 20, 10, 5, 3, 1]), (512, [64, 32, 16, 8, 4, 2, 1])])
@pytest.mark.parametrize('training', [True, False])
def test_extra_layers_equal_their_reference(chain, sizes, training):
    layers = randomize(extra_layers(chain)).train(training)
    feats = [feat.double() for feat in maps((3, 5), sizes)]
    outs = layers(tuple(feats))
    expected = reference.extra_layers(feats, reference.part(layers.state_dict(), ''), CHAINS[chain][1], training)
    assert [out.shape[-1] for out in outs] == sizes
    assert outs[0] is feats[0]
    for out, want in zip(outs, expected):
        torch.testing.assert_close(out, want)


@pytest.mark.parametrize(
    ('strides', 'kernels', 'sizes'),
    [((2, 2, 2, 1, 1), (2, 2, 2, 3, 3), [40, 20, 10, 5, 3, 1]), ((2,) * 3, (2,) * 3, [8, 4, 2, 1])],
)
@pytest.mark.parametrize('mode', ['product', 'sum'])
@pytest.mark.parametrize('training', [True, False])
def test_way_up_equals_its_reference(strides, kernels, sizes, mode, training):
    channels = (3, 5, 8, 8, 8, 8)[: len(sizes)]
    module = randomize(neck(channels, strides=strides, kernel_sizes=kernels, mode=mode)).train(training)
    feats = [feat.double() for feat in maps(channels, sizes)]
    outs = module(tuple(feats))
    expected = reference.neck(feats, reference.part(module.state_dict(), ''), strides, mode, training)
    assert outs[-1] is feats[-1]
    assert [out.shape[1] for out in outs] == [4] * (len(sizes) - 1) + [channels[-1]]
    for out, want in zip(outs, expected):
        torch.testing.assert_close(out, want)


def test_a_product_with_a_silent_map_is_silent_and_a_sum_is_not():
    # A deep map of zeros: what is up-sampled is the bias alone, here 0, and so is its norm in eval mode.
    feats = (torch.randn(1, 3, 4, 4), torch.zeros(1, 5, 2, 2))
    cut = dict(channels=(3, 5), kernel_sizes=(2,), strides=(2,))
    product, total = (neck(**cut, mode=mode).eval() for mode in ('product', 'sum'))
    for module in (product, total):
        module.modules_up[0].deconv.bias.data.zero_()
    assert product(feats)[0].abs().max() == 0
    assert total(feats)[0].max() > 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_agrees_with_float32(dtype):
    # With kept statistics: those of a batch of two 1 x 1 maps blow up any rounding.
    layers, up = extra_layers().eval(), neck().eval()
    feats = tuple(maps((3, 5), (40, 20)))
    expected = up(layers(feats))
    with torch.autocast('cpu', dtype=dtype):
        outs = up(layers(feats))
    for out, want in zip(outs, expected):
        assert (out.float() - want).norm() < 3e-2 * want.norm()


# ----------------------------------------------------------------------------------------- norms and freezing


def run(module):
    """A forward in training, with a backward where something learns."""
    if 'in_channels' in vars(module) and len(module.in_channels) == 2:
        outs = module(tuple(maps((3, 5), (40, 20))))
    else:
        outs = module(tuple(maps((3, 5, 8, 8, 8, 8), (40, 20, 10, 5, 3, 1))))
    loss = sum(out.square().sum() for out in outs)
    if loss.requires_grad:
        loss.backward()


def statistics(module):
    return {
        key: value.clone() for key, value in module.state_dict().items() if 'running' in key or 'num_batches' in key
    }


def same(before, after):
    assert before
    return all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize('build', [extra_layers, neck])
class TestFreezing:
    def test_by_default_all_learns(self, build):
        module = build().train()
        before = statistics(module)
        run(module)
        assert not any(torch.equal(before[key], value) for key, value in statistics(module).items())
        assert all(parameter.grad is not None for parameter in module.parameters())

    def test_norm_eval_keeps_the_statistics_and_learns(self, build):
        module = build(norm_eval=True).train()
        before = statistics(module)
        run(module)
        assert same(before, statistics(module))
        assert all(parameter.grad is not None for parameter in module.parameters())

    def test_frozen_keeps_all(self, build):
        module = build(frozen=True).train()
        before = statistics(module)
        assert not any(parameter.requires_grad for parameter in module.parameters())
        run(module)
        assert same(before, statistics(module))
        assert all(parameter.grad is None for parameter in module.parameters())

    @pytest.mark.parametrize(('kwargs', 'kept'), [({}, False), (dict(norm_eval=True), True), (dict(frozen=True), True)])
    def test_modes_come_and_go(self, build, kwargs, kept):
        module = build(**kwargs)
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        for mode in (True, False, True):
            assert module.train(mode) is module
            assert module.training is mode
            assert {norm.training for norm in norms} == {mode and not kept}

    def test_one_image(self, build):
        # Of the two, the extra layers alone make a map of 1 x 1.
        module = build().train()
        outs = [(3, 5), (40, 20)] if build is extra_layers else [(3, 5, 8, 8, 8, 8), (40, 20, 10, 5, 3, 1)]
        feats = tuple(maps(*outs, images=1))
        if build is extra_layers:
            with pytest.raises(ValueError, match='batch norm cannot train on one value'):
                module(feats)
        for works in (build(norm_eval=True).train(), build(norm_cfg=GN).train(), module.eval()):
            assert [len(out) for out in works(feats)] == [1] * 6


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize('count', [1, 3])
def test_wrong_number_of_maps(count):
    with pytest.raises(ValueError, match=f'ResNetExtraLayers takes 2 feature maps, .* got {count}: out_indices'):
        extra_layers()(tuple(maps((3, 5, 8)[:count], (40, 20, 10)[:count])))
    with pytest.raises(ValueError, match=f'DeconvolutionNeck takes 6 feature maps, .* got {count}: out_indices'):
        neck()(tuple(maps((3, 5, 8)[:count], (40, 20, 10)[:count])))


def test_lengths_that_do_not_fit():
    with pytest.raises(ValueError, match='3 kernel_sizes and 4 strides'):
        extra_layers(kernel_sizes=(2, 2, 3))
    with pytest.raises(ValueError, match=r'6 in_channels need 5 kernel_sizes and strides, .* got 4 and 5'):
        neck(kernel_sizes=(2, 2, 3, 3))
    with pytest.raises(ValueError, match=r'5 in_channels need 4 kernel_sizes and strides, .* got 5 and 5'):
        neck((3, 5, 8, 8, 8))


def test_unknown_mode():
    with pytest.raises(ValueError, match="mode is 'product' or 'sum', got 'mean'"):
        neck(mode='mean')


def test_input_too_small():
    # 64 pixels: res5 has 4 cells a side, res6 2, res7 1, and res8 a kernel of 3.
    with pytest.raises(ValueError, match='a kernel of 3 has a map of 1 x 1 before it: the input is too small'):
        extra_layers()(tuple(maps((3, 5), (8, 4))))


@pytest.mark.parametrize(
    ('pixels', 'chain', 'message'),
    [
        # mmdet's ResNet rounds up: 41 and 21 at 321; 21 -> 10 -> 5 -> 3 -> 1, and up again to 20.
        (321, 320, 'level 1 is 21 x 21, the up-sampled one of level 2 is 20 x 20.* multiples of 64 pixels'),
        # 576 is a multiple of 64, of which 36 -> 18 -> 9 -> 4 cells do not come back.
        (576, 512, 'level 3 is 9 x 9, the up-sampled one of level 4 is 8 x 8.* multiples of 512 pixels'),
        (513, 512, 'level 1 is 33 x 33, the up-sampled one of level 2 is 32 x 32.* multiples of 512 pixels'),
    ],
)
def test_sizes_that_do_not_meet(pixels, chain, message):
    kernel_sizes, strides = CHAINS[chain]
    layers = extra_layers(chain).eval()
    up = neck((3, 5, *[8] * len(strides)), kernel_sizes=(2, *kernel_sizes), strides=(2, *strides)).eval()
    feats = layers(tuple(maps((3, 5), (-(-pixels // 8), -(-pixels // 16)), images=1)))
    with pytest.raises(ValueError, match=message):
        up(feats)


@pytest.mark.parametrize('sides', [(320, 320), (384, 384), (320, 448)])
def test_multiples_of_64_meet(sides):
    layers, up = extra_layers().eval(), neck().eval()
    feats = layers(tuple(torch.randn(1, c, *(side // step for side in sides)) for c, step in ((3, 8), (5, 16))))
    assert [out.shape[-2:] for out in up(feats)] == [feat.shape[-2:] for feat in feats]


def test_message_names_the_remedies():
    with pytest.raises(ValueError, match=r'Linear: .* 3 x 4, .* 3 x 5.*keep_ratio=False.*pad_size_divisor=32'):
        check_same_size(nn.Linear(1, 1), 0, torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 5), 32)

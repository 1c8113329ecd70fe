"""RefineDet's network: sizes, anchors and parameters as released, and its maps by torch's functions alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from reference.refinedet import anchors
from reference.refinedet_network import Network, randomized
from refinedet_cases import CHANNELS, build, config, multiply_adds, pixels

from balanced_det.models import NormedSSDNeck, RefineDetVGG, TransferConnectionNeck

MODELS_OF = Path(__file__).parents[3] / 'configs' / '_base_' / 'models'
R50, VGG = 'refinedet_r50.py', 'refinedet_vgg16.py'


@pytest.fixture(scope='module', params=[(R50, 50), (R50, 101), (VGG, 16)], ids=['r50', 'r101', 'vgg16'])
def detector(request):
    """A detector of the configs at real size, without its numbers."""
    file, depth = request.param
    cfg = Config.fromfile(MODELS_OF / file)
    cfg.model.backbone.depth = depth
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return MODELS.build(cfg.model).to('meta').eval(), cfg, depth


@pytest.mark.parametrize(('size', 'sides', 'total'), [(320, (40, 20, 10, 5), 6375), (512, (64, 32, 16, 8), 16320)])
def test_maps_and_anchors(detector, size, sides, total):
    model, cfg, depth = detector
    images = torch.empty(1, 3, size, size, device='meta')
    channels = (512, 512, 1024, 512) if depth == 16 else (512, 1024, 2048, 512)
    sources = model.extract_feat(images)
    assert [(x.shape[1], *x.shape[2:]) for x in sources] == [(c, side, side) for c, side in zip(channels, sides)]
    assert [x.shape[1:] for x in model.transfer(sources)] == [(256, side, side) for side in sides]
    arm, odm = model(images)
    for outs, columns in ((arm, (2, 4)), (odm, (81, 4))):
        for levels, width in zip(outs, columns):
            assert [x.shape for x in levels] == [(1, 3 * width, side, side) for side in sides]
    # The generators of the model itself are without numbers too.
    for block in (cfg.model.arm_head, cfg.model.bbox_head):
        generator = TASK_UTILS.build(block.anchor_generator)
        assert generator.strides == [(size // side,) * 2 for side in sides]
        assert sum(map(len, generator.grid_priors([(side, side) for side in sides], device='cpu'))) == total


def test_anchor_boxes_by_hand():
    generator = TASK_UTILS.build(Config.fromfile(MODELS_OF / R50).model.bbox_head.anchor_generator)
    sizes = [(2, 3), (1, 2), (1, 1), (1, 1)]
    levels = generator.grid_priors(sizes, device='cpu')
    half, long = 8 * 2**0.5, 16 * 2**0.5  # of 32 x 32 pixels, and twice as high as wide
    first = [
        [4 - 16, 4 - 16, 4 + 16, 4 + 16],
        [4 - half, 4 - long, 4 + half, 4 + long],
        [4 - long, 4 - half, 4 + long, 4 + half],
    ]
    torch.testing.assert_close(levels[0][:3], torch.tensor(first))
    torch.testing.assert_close(levels[0][3:6], torch.tensor(first) + torch.tensor([8.0, 0, 8, 0]))  # along the row
    torch.testing.assert_close(levels[0][9:12], torch.tensor(first) + torch.tensor([0.0, 8, 0, 8]))
    assert levels[3][0].tolist() == [32 - 128, 32 - 128, 32 + 128, 32 + 128]
    torch.testing.assert_close(torch.cat(levels), torch.tensor(anchors(sizes)))


def conv(inputs, outputs, kernel, bias=True):
    return inputs * outputs * kernel**2 + (outputs if bias else 0)


def block(inputs, planes):
    """A bottleneck with a shortcut: four convolutions without bias, each with a batch norm."""
    convs = ((inputs, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1), (inputs, 4 * planes, 1))
    return sum(conv(*sizes, bias=False) + 2 * sizes[1] for sizes in convs)


def predictors(inputs, columns):
    return conv(inputs, 3 * columns, 3) + conv(inputs, 3 * 4, 3)


def transfer(sources, norm):
    """Three convolutions a level, and a deconvolution below the deepest."""
    kinds = [*((c, 256, 3) for c in sources), *((256, 256, 3),) * 8, *((256, 256, 2),) * 3]
    return sum(conv(*sizes, bias=not norm) + (2 * 256 if norm else 0) for sizes in kinds)


def vgg_parameters():
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    return sum(conv(*pair, 3) for pair in zip(widths, widths[1:])) + conv(512, 1024, 3) + conv(1024, 1024, 1)


def test_parameters_by_hand(detector):
    model, _, depth = detector
    if depth == 16:
        sources = (512, 512, 1024, 512)
        expected = dict(
            backbone=vgg_parameters(),
            neck=512 + 512 + conv(1024, 256, 1) + conv(256, 512, 3),
            arm_head=sum(predictors(c, 2) for c in sources),
            bbox_head=4 * predictors(256, 81),
        )
    else:
        sources = (512, 1024, 2048, 512)
        expected = dict(
            backbone={50: 25_557_032, 101: 44_549_160}[depth] - (2048 * 1000 + 1000),  # torchvision's, without fc
            neck=block(2048, 128),
            arm_head=sum(block(c, 256) + predictors(1024, 2) for c in sources),
            bbox_head=4 * (block(256, 256) + predictors(1024, 81)),
        )
    expected['transfer'] = transfer(sources, norm=depth != 16)
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    assert counts == {'data_preprocessor': 0, **expected}
    millions = {50: 63.5, 101: 82.5, 16: 36.1}[depth]  # docs/refinedet.md
    assert round(sum(counts.values()) / 1e6, 1) == millions


@pytest.mark.parametrize(('size', 'giga'), [(320, {50: 25.9, 16: 38.7}), (512, {50: 66.2, 16: 99.0})])
def test_multiply_adds(detector, size, giga):
    model, _, depth = detector
    if depth in giga:  # docs/refinedet.md has those of ResNet-50
        assert round(multiply_adds(model, torch.empty(1, 3, size, size, device='meta')) / 1e9, 1) == giga[depth]


@pytest.mark.parametrize('norm_cfg', [None, dict(type='BN')], ids=['no norm', 'batch norm'])
def test_transfer_connections_equal_torch_functions(norm_cfg):
    neck = randomized(TransferConnectionNeck(CHANNELS, channels=6, norm_cfg=norm_cfg))
    sources = [torch.randn(2, c, side, side, dtype=torch.double) for c, side in zip(CHANNELS, (8, 4, 2, 1))]
    given = [source.clone() for source in sources]
    reference = Network({f'neck.{name}': value for name, value in neck.state_dict().items()})
    for out, expected in zip(neck(tuple(sources)), reference.transfer('neck', sources)):
        torch.testing.assert_close(out, expected)
        assert (expected > 0).float().mean() > 0.1  # not all behind a ReLU
    assert {name for name in reference.state if not name.endswith('num_batches_tracked')} == reference.used
    assert all(torch.equal(*pair) for pair in zip(sources, given))  # the in-place ReLU touches no source


@pytest.mark.parametrize('modules', [2, None], ids=['prediction modules', 'none'])
def test_detector_equals_torch_functions(modules):
    model = randomized(build(**{name: dict(prediction_planes=modules) for name in ('arm_head', 'bbox_head')}))
    images = pixels().double()
    with torch.no_grad():
        actual = model(images)
        reference = Network(model.state_dict())
        expected = reference.detector(model.backbone(images))
    for levels, wanted in zip((*actual[0], *actual[1]), (*expected[0], *expected[1])):
        for got, want in zip(levels, wanted):
            torch.testing.assert_close(got, want)
    unused = set(reference.state) - reference.used
    assert all(name.startswith('backbone') or name.endswith('num_batches_tracked') for name in unused)


def test_vgg_equals_torch_functions():
    backbone = RefineDetVGG(with_last_pool=False, ceil_mode=True).double()
    backbone.init_weights()
    neck = NormedSSDNeck((512, 512, 1024), (512, 512, 1024, 512), level_strides=(2,), level_paddings=(1,)).double()
    neck.init_weights()
    assert [norm.weight.unique().tolist() for norm in neck.l2_norms] == [[10.0], [8.0]]
    images = pixels(1).double()
    with torch.no_grad():
        maps = backbone(images)
        reference = Network(backbone.state_dict())
        for got, want in zip(maps, reference.vgg(images)):
            torch.testing.assert_close(got, want)
        assert reference.used == reference.state.keys()
        assert all((x > 0).any() for x in maps)
        for norm in neck.l2_norms:
            norm.weight.uniform_(5, 12)
        reference = Network(neck.state_dict())
        sources = neck(maps)
        for got, want in zip(sources, reference.vgg_neck(maps)):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)  # mmdet's norm computes in float32
    assert [64 // x.shape[-1] for x in sources] == [8, 16, 32, 64]


def test_vgg_differs_from_ssds_in_two_layers():
    backbone = RefineDetVGG(16, with_last_pool=False, ceil_mode=True)
    assert (backbone.features[30].stride, backbone.features[31].dilation) == (2, (3, 3))
    stock = MODELS.build(dict(type='SSDVGG', depth=16, with_last_pool=False, ceil_mode=True))
    assert {k: v.shape for k, v in backbone.state_dict().items()} == {k: v.shape for k, v in stock.state_dict().items()}


@pytest.mark.parametrize('norm', [True, False])
def test_init_weights_has_no_bias(norm):
    neck = TransferConnectionNeck(CHANNELS, channels=6, norm_cfg=dict(type='BN') if norm else None)
    neck.init_weights()
    convs = [layer for layer in neck.modules() if getattr(getattr(layer, 'weight', None), 'ndim', 0) == 4]
    assert len(convs) == 15
    for layer in convs:
        kernel = layer.kernel_size[0] ** 2
        bound = (6 / (kernel * (layer.in_channels + layer.out_channels))) ** 0.5  # Xavier, uniform
        assert 0.5 * bound < layer.weight.abs().max() <= bound
        assert (layer.bias is None) == norm
        assert norm or layer.bias.eq(0).all()


@pytest.mark.parametrize(
    ('blocks', 'message'),
    [
        (dict(arm_head=dict(num_classes=2)), r'arm_head.num_classes is 2; .* set it to 1'),
        (dict(bbox_head=dict(anchor_generator=dict(ratios=[1.0, 2.0]))), 'give both the same anchor_generator'),
        (dict(bbox_head=dict(anchor_generator=dict(scales=[3]))), 'give both the same anchor_generator'),
        (dict(arm_head=dict(anchor_generator=dict(strides=[8, 16, 32, 60]))), 'give both the same anchor_generator'),
        (dict(arm_head=dict(anchor_generator=dict(center_offset=0.0))), 'give both the same anchor_generator'),
        (dict(bbox_head=dict(in_channels=(8,) * 3)), 'in_channels has 3 levels'),
    ],
)
def test_heads_that_do_not_go_together(blocks, message):
    cfg = config()
    for name, changes in blocks.items():
        for key, value in changes.items():
            if isinstance(value, dict):
                cfg[name][key].update(value)
            else:
                cfg[name][key] = value
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


@pytest.mark.parametrize(
    ('size', 'maps'),
    [
        ((300, 300), 'level 1 is 19 x 19, the up-sampled one of level 2 is 20 x 20'),
        ((320, 300), 'level 1 is 20 x 19, the up-sampled one of level 2 is 20 x 20'),
        ((96, 64), 'level 2 is 3 x 2, the up-sampled one of level 3 is 4 x 2'),
    ],
)
def test_input_that_the_strides_do_not_divide(size, maps):
    model = build()
    with pytest.raises(ValueError, match=f'TransferConnectionNeck: the map of {maps}.* multiples of 64 pixels'):
        model(torch.zeros(2, 3, *size))
    data = dict(inputs=[torch.zeros(3, *size)] * 2)
    padded = model.data_preprocessor(data)['inputs']  # what the detector does by itself
    assert all(side % 64 == 0 for side in padded.shape[-2:])
    model(padded)


def test_wrong_number_of_maps():
    neck = TransferConnectionNeck(CHANNELS, channels=4)
    with pytest.raises(ValueError, match=r'TransferConnectionNeck takes 4 feature maps.* and got 3'):
        neck(tuple(torch.zeros(1, c, 2, 2) for c in CHANNELS[:3]))
    model = build(backbone=dict(out_indices=(0, 1, 2, 3)))
    with pytest.raises(ValueError, match=r'ResNetExtraLayers takes 3 feature maps.* and got 4'):
        model(pixels())


def test_the_deepest_level_has_three_convolutions_alone():
    weights = [name for name, value in TransferConnectionNeck(CHANNELS).state_dict().items() if value.ndim == 4]
    assert [name for name in weights if name.startswith('blocks.3.')] == [
        f'blocks.3.{name}.conv.weight' for name in ('source.0', 'source.1', 'out')
    ]
    assert [name for name in weights if 'deconv' in name] == [f'blocks.{level}.deconv.0.weight' for level in range(3)]

"""Every config of mmdet: its losses are swapped, or it is refused with a reason."""

from __future__ import annotations

import copy
import functools
import json

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from balanced_det.heads import check_heads
from balanced_det.swap import METHODS, SwapError, swap_config, swap_losses
from balanced_det.swap.files import _stock_folder

FOLDER = _stock_folder()
NAMES = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob('*.py')
    if '_base_' not in path.relative_to(FOLDER).parts
)
FAMILIES = ('retinanet', 'ssd', 'foveabox', 'faster_rcnn', 'mask_rcnn', 'cascade_rcnn', 'rpn')
OF_FAMILIES = [name for name in NAMES if name.split('/')[0] in FAMILIES]
OTHERS = [name for name in NAMES if name not in OF_FAMILIES]
REFUSED = {'retinanet/retinanet_tta.py': 'no model'}  # test-time augmentation alone
# Losses of decoded boxes.
KEEPS_LOSS_BBOX = {
    'faster_rcnn/faster-rcnn_r50_fpn_bounded-iou_1x_coco.py': 'BoundedIoULoss',
    'faster_rcnn/faster-rcnn_r50_fpn_ciou_1x_coco.py': 'CIoULoss',
    'faster_rcnn/faster-rcnn_r50_fpn_giou_1x_coco.py': 'GIoULoss',
    'faster_rcnn/faster-rcnn_r50_fpn_iou_1x_coco.py': 'IoULoss',
}
SWAPPED = [name for name in OF_FAMILIES if name not in REFUSED]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


@functools.cache
def load(name):
    """A config of mmdet, or the error if it does not load there: a package or a file may be missing."""
    try:
        return Config.fromfile(FOLDER / name)
    except (FileNotFoundError, ImportError) as error:
        return error


def loadable(names):
    return [name for name in names if isinstance(load(name), Config)]


def bare(node):
    """Plain dicts without the scope that mmengine notes in what it loads from `mmdet::`."""
    if isinstance(node, dict):
        return {key: bare(value) for key, value in node.items() if key != '_scope_'}
    return type(node)(map(bare, node)) if isinstance(node, (list, tuple)) else node


def final_heads(model):
    """The blocks that may change."""
    if 'roi_head' not in model:
        return [model.get('bbox_head') or model['rpn_head']]
    heads = model['roi_head']['bbox_head']
    return heads if isinstance(heads, list) else [heads]


def without_swapped_parts(cfg):
    cfg = copy.deepcopy(cfg)
    for head in final_heads(cfg['model']):
        for key in ('type', 'loss_cls', 'loss_bbox'):
            head.pop(key, None)
    return {key: value for key, value in cfg.items() if key not in ('custom_imports', 'custom_hooks')}


@pytest.mark.parametrize(
    'name',  # every third in the normal run
    [pytest.param(name, marks=pytest.mark.slow if index % 3 else []) for index, name in enumerate(SWAPPED)],
)
def test_file_and_memory_agree_and_change_the_losses_alone(name, tmp_path):
    if isinstance(load(name), Exception):
        pytest.skip(f'does not load in mmdet: {load(name)}')
    swapped = swap_losses(name, out=tmp_path / 'new.py')
    original, new = bare(load(name).to_dict()), bare(Config.fromfile(tmp_path / 'new.py').to_dict())
    assert new == bare(swap_config(load(name)).to_dict())
    assert without_swapped_parts(new) == without_swapped_parts(original)
    assert len(swapped.text) < 2500
    keeps = KEEPS_LOSS_BBOX.get(name)
    assert [note.split(': ')[1].split()[0] for note in swapped.notes] == ([keeps] if keeps else [])
    for before, after in zip(final_heads(original['model']), final_heads(new['model'])):
        assert after['type'] == f'IoUBalanced{before["type"]}'
        assert after['loss_cls']['type'].startswith('IoUBalanced')
        assert after['loss_bbox']['type'] == (keeps or 'IoUBalancedSmoothL1Loss')
    hook = [] if keeps else [dict(type='LocWeightCalibrationHook')]
    assert new.get('custom_hooks', []) == original.get('custom_hooks', []) + hook


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name):
    with pytest.raises(SwapError, match=REFUSED[name]):
        swap_config(load(name))


@pytest.mark.parametrize('share', [20, pytest.param(1, marks=pytest.mark.slow)])
def test_others_are_swapped_or_refused(share):
    names = loadable(OTHERS[::share])
    refusals = {}
    for name in names:
        try:
            swap_config(load(name))
        except SwapError as error:
            refusals[name] = str(error)
    assert [name for name, text in refusals.items() if len(text.splitlines()) not in (1, 2)] == []
    assert len(names) / 3 < len(names) - len(refusals) < len(names)


def build(model, device):
    """A model without its pretrained weights, and with few samples to train on."""

    def changed(node):
        if isinstance(node, dict):
            node = ConfigDict({key: changed(value) for key, value in node.items() if key != 'pretrained'})
            if (node.get('init_cfg') or {}).get('type') == 'Pretrained':
                del node.init_cfg
            if 'Sampler' in str(node.get('type')) and 'num' in node:
                node.num = 64
            return node
        return type(node)(map(changed, node)) if isinstance(node, (list, tuple)) else node

    with torch.device(device):
        return MODELS.build(changed(model))


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.slow
@pytest.mark.parametrize('names', [SWAPPED, NAMES], ids=['families', 'all'])
def test_each_kind_of_swapped_head_builds_and_fits_its_losses(names, method):
    built = set()
    for name in loadable(names):
        try:
            model = swap_config(load(name), method).model
        except SwapError:
            continue
        parts = {
            key: value for key, value in bare(model).items() if key not in ('backbone', 'neck', 'data_preprocessor')
        }
        kind = json.dumps(parts, sort_keys=True)
        if kind in built:
            continue
        try:
            keys = build(load(name).model, 'meta').state_dict().keys()
        except (ImportError, RuntimeError, ValueError):  # a package, a process group or an operator is missing
            continue
        swapped = build(model, 'meta')
        assert swapped.state_dict().keys() == keys, name
        check_heads(swapped)
        built.add(kind)
    assert len(built) > 20


@pytest.mark.parametrize('name', [name for name in SWAPPED if not name.startswith('rpn/')])
def test_harmonic_adds_a_block_and_changes_no_other(name):
    if isinstance(load(name), Exception):
        pytest.skip(f'does not load in mmdet: {load(name)}')
    original, new = bare(load(name).to_dict()), bare(swap_config(load(name), 'harmonic').to_dict())
    for before, after in zip(final_heads(original['model']), final_heads(new['model'])):
        assert after.pop('loss_joint') == dict(type='HarmonicDetLoss')
        assert after.pop('type') == f'Harmonic{before.pop("type")}'
    assert new.pop('custom_imports')['imports'][-1] == 'harmonic'
    original.pop('custom_imports', None)
    assert new == original


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(
    'name',
    [
        'retinanet/retinanet_r18_fpn_1x_coco.py',
        'ssd/ssd300_coco.py',
        'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    ],
)
def test_inference_from_the_same_weights_is_bit_identical(name, method):
    stock = build(load(name).model, 'cpu')
    stock.init_weights()
    swapped = build(swap_config(load(name), method).model, 'cpu')
    swapped.load_state_dict(stock.state_dict())  # strict: the keys are the same
    if name.startswith('ssd'):
        stock.bbox_head.loss_cls = swapped.bbox_head.loss_cls  # without it mmdet's SSD cannot predict
    found = []
    for model in (stock, swapped):
        model.eval()
        for module in model.modules():
            if 'score_thr' in (getattr(module, 'test_cfg', None) or ()):
                module.test_cfg.score_thr = 0.0  # untrained scores are low
        size = 300 if name.startswith('ssd') else 128
        torch.manual_seed(3)
        data = model.data_preprocessor(demo_mm_inputs(2, [[3, size, size]] * 2, num_classes=80), False)
        with torch.no_grad():
            found.append(model(**data, mode='predict'))
    for got, expected in zip(*found):
        instances = expected.pred_instances
        assert len(instances) > 0
        for key in instances.all_keys():
            torch.testing.assert_close(got.pred_instances[key], instances[key], rtol=0, atol=0)


TRAINED = [
    'retinanet/retinanet_r18_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50-caffe_fpn_1x_coco.py',
    'ssd/ssd300_coco.py',
    'ssd/ssd512_coco.py',
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    'foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco.py',
    'foveabox/fovea_r101_fpn_4xb4-1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_ohem_1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_giou_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50-caffe_fpn_poly-1x_coco_v1.py',
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50-caffe_fpn_1x_coco.py',
    'rpn/rpn_r50_fpn_1x_coco.py',
    'rpn/rpn_r50-caffe-c4_1x_coco.py',
    'rpn/rpn_r50_fpn_2x_coco.py',
    # Losses that stay, and heads that stay with them.
    'libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py',
    'seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py',
    'legacy_1.x/faster-rcnn_r50_fpn_1x_coco_v1.py',
    'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'htc/htc-without-semantic_r50_fpn_1x_coco.py',
]


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINED)
def test_one_training_step(name):
    stock = build(load(name).model, 'cpu')
    stock.init_weights()
    weights = copy.deepcopy(stock.state_dict())

    def losses(cfg):
        model = build(cfg.model, 'cpu')
        model.load_state_dict(weights)
        return losses_of_a_step(model, 300 if name.startswith('ssd') else 128), model

    before, _ = losses(load(name))
    # Without weights by the IoU they are the stock losses; not where a smooth L1 stands in the place of L1.
    unweighted, _ = losses(neutral_config(name))
    l1 = any(head.get('loss_bbox', {}).get('type') == 'L1Loss' for head in final_heads(load(name).model))
    compared = [key for key in before if not (l1 and key.endswith(('loss_bbox', 'loss_rpn_bbox')))]
    torch.testing.assert_close({key: unweighted[key] for key in compared}, {key: before[key] for key in compared})
    after, model = losses(swap_config(load(name)))
    sum(after.values()).backward()
    head = model.roi_head.bbox_head if hasattr(model, 'roi_head') else model.bbox_head
    for kind in ('cls', 'reg'):
        grads = [part.grad for key, part in head.named_parameters() if kind in key and part.grad is not None]
        assert all(grad.isfinite().all() for grad in grads)
        assert any(grad.abs().sum() > 0 for grad in grads)


def losses_of_a_step(model, size):
    """Each loss of one batch of two random images, added up as mmengine does."""
    torch.manual_seed(3)
    model.train()
    data = demo_mm_inputs(2, [[3, size, size]] * 2, num_classes=80, num_items=[4, 3], with_mask=True)
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    return {
        name: sum(part.mean() for part in (value if isinstance(value, (list, tuple)) else [value]))
        for name, value in losses.items()
        if 'loss' in name
    }


def neutral_config(name):
    """The swapped config with eta and lambda 0, of those losses that are swapped."""
    for options in (dict(eta=0.0, lambda_=0.0), dict(eta=0.0), dict(lambda_=0.0)):
        try:
            return swap_config(load(name), **options)
        except SwapError:
            continue
    raise AssertionError(name)

"""w_loc without a training: from the anchors alone, and from the first batches."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator, MlvlPointGenerator
from mmengine.config import Config
from reference.anchors import anchors, assign, encode, resized
from reference.boxes import delta_iou
from reference.iou_balanced import localisation, smooth_l1
from torch import nn

from balanced_det.calibration import (
    CalibrationError,
    LossSums,
    blank_images,
    calibratable_losses,
    collected_sums,
    from_anchors,
    from_first_batches,
)
from balanced_det.swap import find_config, swap_config
from iou_balanced.losses import IoUBalancedSmoothL1Loss

ROOT = Path(__file__).parents[2]
RETINANET = ROOT / 'configs' / 'iou_balanced' / 'coco' / 'retinanet_r50_fpn_iou-balanced-1x_coco.py'
FASTER_RCNN = ROOT / 'configs' / 'iou_balanced' / 'coco_tiny' / 'faster-rcnn_r50_fpn_iou-balanced-1x_coco-tiny.py'
LAMBDAS = (0.5, 1.5)

# (height, width) and the boxes, xyxy. The long thin boxes have no anchor of IoU 0.5, but one that is the best by far:
# where several are equally good in theory, rounding decides which of them are positives.
IMAGES = [
    ((120, 160), [(20.3, 15.7, 95.2, 88.1), (36.9, 28.9, 79.8, 36.9)]),
    ((150, 100), [(11.8, 30.2, 70.7, 139.4)]),
    ((90, 130), [(5.5, 8.1, 120.2, 80.9), (40.7, 20.3, 85.1, 71.6), (93.2, 8.2, 101.2, 45.3)]),
]
CROWD = (1, (0.0, 0.0, 99.0, 60.0))  # of the second image
SCALE = (200, 150)


@pytest.fixture(scope='module')
def photos(tmp_path_factory) -> Path:
    """A COCO-format set of three images, in the folders of COCO."""
    root = tmp_path_factory.mktemp('photos')
    (root / 'annotations').mkdir()
    boxes = [(number, box, 0) for number, (_, boxes) in enumerate(IMAGES) for box in boxes]
    annotations = [
        dict(id=n, image_id=image, category_id=1 + n % 2, iscrowd=crowd, bbox=[x1, y1, x2 - x1, y2 - y1], area=1000)
        for n, (image, (x1, y1, x2, y2), crowd) in enumerate([*boxes, (*CROWD, 1)])
    ]
    images = []
    for number, ((height, width), _) in enumerate(IMAGES):
        noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        mmcv.imwrite(noise, str(root / 'train2017' / f'{number}.png'))
        images.append(dict(id=number, file_name=f'{number}.png', height=height, width=width))
    content = dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='person'), dict(id=2, name='bicycle')]
    )
    (root / 'annotations' / 'instances_train2017.json').write_text(json.dumps(content))
    return root


RESNET18 = {'model.backbone.depth': 18, 'model.neck.in_channels': [64, 128, 256, 512]}


def on(cfg, root, scale=SCALE):
    """A config on another set, in this process, at another scale; with a backbone that is built faster."""
    if cfg.model.backbone.type == 'ResNet':
        cfg.merge_from_dict(RESNET18)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    dataset = cfg.train_dataloader.dataset
    dataset = dataset.dataset if 'dataset' in dataset else dataset
    dataset.data_root = f'{root}/'
    for step in dataset.pipeline:
        if step.type == 'Resize' and step.keep_ratio:
            step.scale = scale
    return cfg


def naive_sums(images, scale, lambdas, beta, delta=0.0):
    """Positives, S_0 and S_lambda of each exponent, for one prediction of each delta; and how many were forced."""
    total, forced = np.zeros(2 + len(lambdas)), 0
    for size, boxes in images:
        size, boxes = resized(size, boxes, scale)
        for anchor, box, overlap, is_forced in assign(anchors(size), boxes):
            target = encode(anchor, box)
            loss = sum(smooth_l1(delta - value, beta) for value in target)
            fit = overlap if delta == 0 else delta_iou([delta] * 4, target)
            total += [1, loss, *(fit**lambda_ * loss for lambda_ in lambdas)]
            forced += is_forced
    return total, forced


def test_anchors_agree_with_naive_loops(photos):
    cfg = on(Config.fromfile(RETINANET), photos)
    cfg.train_dataloader.dataset.pipeline[3].prob = 0.0  # RandomFlip
    sums = from_anchors(cfg, LAMBDAS)
    expected, forced = naive_sums(IMAGES, SCALE, LAMBDAS, beta=0.111)
    assert forced >= 2
    assert sums.images == 3
    assert sums.rows['bbox_head.loss_bbox'] == pytest.approx(expected, rel=1e-5)
    assert sums.w_loc('bbox_head.loss_bbox') == pytest.approx(expected[1] / expected[2:], rel=1e-5)


def test_anchors_on_coco_tiny(shared_data):
    """RetinaNet-R50 at 1000 x 600; the values are those of a plain recomputation without flips."""
    cfg = on(Config.fromfile(RETINANET), shared_data / 'coco_tiny', scale=(1000, 600))
    sums = from_anchors(cfg, (0.5, 1.0, 1.5, 1.8))
    assert sums.images == 80
    assert sums.w_loc('bbox_head.loss_bbox') == pytest.approx([1.416, 1.944, 2.630, 3.140], rel=0.03)


def spy(method, sizes):
    """A method of a generator of anchors or points that also notes the sizes of the feature maps."""

    def noted(self, featmap_sizes, *args, **kwargs):
        sizes.append([tuple(size) for size in featmap_sizes])
        return method(self, featmap_sizes, *args, **kwargs)

    return noted


STOCK = {  # stock config -> images in a batch: SSDLite normalises over a batch, so one image would not do
    'retinanet_r50_fpn_1x_coco': 2,
    'rpn_r50_fpn_1x_coco': 2,
    'fovea_r50_fpn_4xb4-1x_coco': 2,
    'ssdlite_mobilenetv2-scratch_8xb24-600e_coco': 3,
}


@pytest.mark.parametrize(('name', 'batch_size'), STOCK.items())
def test_anchors_are_what_a_network_of_zeros_predicts(photos, name, batch_size, monkeypatch):
    """The same images, flips and crops through the whole detector, whose head has zeros for weights."""
    sizes = []
    for generator in (AnchorGenerator, MlvlPointGenerator):
        monkeypatch.setattr(generator, 'grid_priors', spy(generator.grid_priors, sizes))
    cfg = on(Config.fromfile(find_config(name)), photos)
    cfg.train_dataloader.update(batch_size=batch_size, batch_sampler=None)
    cfg.model.backbone.init_cfg = None
    head = cfg.model.get('bbox_head') or cfg.model.rpn_head
    head.init_cfg = dict(type='Constant', layer='Conv2d', val=0.0, bias=0.0)
    cfg = swap_config(cfg, losses='loc')
    through_network = from_first_batches(cfg, LAMBDAS, num_batches=-(-3 // batch_size))
    sizes_of_network = sizes.copy()
    sizes.clear()
    sums = from_anchors(cfg, LAMBDAS, num_images=3)
    assert sizes == sizes_of_network
    assert (sums.images, list(sums.rows)) == (3, ['bbox_head.loss_bbox'])
    assert sums.positives('bbox_head.loss_bbox') > 3
    assert sums.rows['bbox_head.loss_bbox'] == pytest.approx(through_network.rows['bbox_head.loss_bbox'], rel=1e-5)


def test_anchors_need_no_images(photos, tmp_path):
    (tmp_path / 'annotations').symlink_to(photos / 'annotations')
    sums = from_anchors(on(Config.fromfile(RETINANET), tmp_path), LAMBDAS)
    assert sums.images == 3


@pytest.mark.parametrize('row', [[0, 0.0, 0.0], [2, 3.0, 0.0], [2, float('inf'), 1.0], [2, float('nan'), 1.0]])
def test_sums_without_a_weight(row):
    assert LossSums((1.5,), dict(loss=row)).w_loc('loss') == [None]


def test_number_of_images(photos):
    cfg = on(Config.fromfile(RETINANET), photos)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    cfg.train_dataloader.update(batch_size=1, batch_sampler=None)
    seen = []
    assert from_anchors(cfg, LAMBDAS, num_images=2, progress=lambda sums: seen.append(sums.images)).images == 2
    assert seen == [1, 2]
    assert from_anchors(cfg, LAMBDAS).images == 3  # the set, once


def test_images_of_wrapped_sets_are_blank():
    load, mosaic = dict(type='mmdet.LoadImageFromFile', backend_args=None), dict(type='Mosaic', img_scale=(640, 640))
    inner = dict(type='CocoDataset', pipeline=[load, dict(type='LoadAnnotations', with_bbox=True)])
    loader = dict(batch_size=2, dataset=dict(type='MultiImageMixDataset', dataset=inner, pipeline=[mosaic]))
    result = blank_images(loader)['dataset']
    assert [step['type'] for step in result['dataset']['pipeline']][1:] == ['LoadAnnotations']
    assert result['pipeline'] == [mosaic]
    blank = result['dataset']['pipeline'][0]['type']().transform(dict(height=3, width=5))
    assert (blank['img'].shape, blank['img_shape'], blank['ori_shape']) == ((3, 5, 3), (3, 5), (3, 5))
    assert inner['pipeline'][0] == dict(type='mmdet.LoadImageFromFile', backend_args=None)  # the config itself stays


def test_rois_have_no_fit_of_their_own(photos):
    message = r'roi_head\.bbox_head\.loss_bbox belongs to IoUBalancedShared2FCBBoxHead, which has no anchors.*leave out'
    with pytest.raises(CalibrationError, match=message):
        from_anchors(on(Config.fromfile(FASTER_RCNN), photos), LAMBDAS)


def test_maps_made_without_padding_do_not_follow_from_the_strides():
    cfg = Config.fromfile(ROOT / 'configs/iou_balanced/coco_tiny/dssd320_r50_iou-balanced_coco-tiny.py')
    with torch.device('meta'), pytest.raises(CalibrationError, match=r'made without padding: .*leave out'):
        from_anchors(cfg, LAMBDAS)


def test_first_batches_of_a_two_stage_detector(photos):
    cfg = on(Config.fromfile(FASTER_RCNN), photos)
    # In one process older versions of torch refuse SyncBN, which a runner replaces.
    cfg.model.backbone.update(init_cfg=None, norm_cfg=dict(type='SyncBN'), norm_eval=False, frozen_stages=-1)
    sums = from_first_batches(cfg, LAMBDAS, seed=4)
    assert (sums.batches, sums.images) == (1, 2)
    low, high = sums.w_loc('roi_head.bbox_head.loss_bbox')
    assert 1 < low < high  # IoU below 1, and its powers


def test_first_batches_begin_with_load_from(photos, tmp_path):
    """A branch of zero weights with a bias of 0.2 predicts that, whatever the image."""
    cfg = on(Config.fromfile(RETINANET), photos)
    cfg.train_dataloader.dataset.pipeline[3].prob = 0.0  # RandomFlip
    cfg.model.backbone.init_cfg = None
    state = {
        'bbox_head.retina_reg.weight': torch.zeros(36, 256, 3, 3),
        'bbox_head.retina_reg.bias': torch.full((36,), 0.2),
    }
    torch.save(dict(state_dict=state), tmp_path / 'shift.pth')
    cfg.load_from = str(tmp_path / 'shift.pth')
    sums = from_first_batches(cfg, LAMBDAS, num_batches=2)
    expected, _ = naive_sums(IMAGES, SCALE, LAMBDAS, beta=0.111, delta=0.2)
    assert sums.rows['bbox_head.loss_bbox'] == pytest.approx(expected, rel=1e-5)


def test_missing_weights(photos):
    cfg = on(Config.fromfile(RETINANET), photos)
    cfg.model.backbone.init_cfg.checkpoint = '/nowhere/r50.pth'
    cfg.load_from = 'tuned.pth'
    message = (
        r'a weight file cannot be had \(FileNotFoundError: .*; the config names '
        r"model\.backbone\.init_cfg\.checkpoint='/nowhere/r50\.pth', load_from='tuned\.pth'\. "
        r'Without it: --cfg-options model\.backbone\.init_cfg=None'
    )
    with pytest.raises(CalibrationError, match=message):
        from_first_batches(cfg, LAMBDAS)


def test_collected_sums_are_those_of_the_calls():
    losses = nn.ModuleDict(dict(one=IoUBalancedSmoothL1Loss(beta=0.2), two=IoUBalancedSmoothL1Loss(lambda_=0.7)))
    pred, target = 0.3 * torch.randn(5, 4), 0.3 * torch.randn(5, 4)
    weight = torch.tensor([1.0, 1, 0, 1, 0])[:, None].expand(5, 4)
    with collected_sums(losses, (0.5, 2.0)) as sums:
        losses['one'](pred, target, weight, avg_factor=3.0)
        losses['one'](pred, target=target)
    losses['one'](pred, target)  # after the block: not counted
    rows = [(0, 1, 3), range(5)]
    expected = [
        sum(localisation(pred[list(r)].tolist(), target[list(r)].tolist(), 0.2, lambda_) for r in rows)
        for lambda_ in (0.0, 0.5, 2.0)
    ]
    assert sums[0].tolist() == pytest.approx([8, *expected], rel=1e-5)
    assert sums[1].tolist() == [0, 0, 0, 0]
    with collected_sums(losses) as sums:
        losses['two'](pred, target)
    own = [localisation(pred.tolist(), target.tolist(), 1.0, lambda_) for lambda_ in (0.0, 0.7)]
    assert sums[1].tolist() == pytest.approx([5, *own], rel=1e-5)


def test_losses_that_can_be_calibrated():
    model = nn.ModuleDict(
        dict(
            stages=nn.ModuleList([IoUBalancedSmoothL1Loss(), IoUBalancedSmoothL1Loss(normalize=True)]),
            stock=nn.SmoothL1Loss(),
        )
    )
    assert list(calibratable_losses(model)) == ['stages.0']
    with pytest.raises(CalibrationError, match='normalize=True'):
        calibratable_losses(model['stages'][1:])
    with pytest.raises(CalibrationError, match='none of the losses'):
        calibratable_losses(model['stock'])


@pytest.fixture
def tool(monkeypatch):
    """tools/calibrate_loc_weight.py in this process."""
    spec = importlib.util.spec_from_file_location('calibrate', ROOT / 'tools' / 'calibrate_loc_weight.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['calibrate_loc_weight.py', *map(str, arguments)])
        module.main()

    return run


def data_options(root, *options):
    names = [f'dataset.data_root={root}/', 'dataset.pipeline.2.scale=(200,150)', 'num_workers=0']
    model = [f'{key}={value}'.replace(' ', '') for key, value in RESNET18.items()]
    loader = [f'train_dataloader.{name}' for name in [*names, 'persistent_workers=False']]
    return ['--cfg-options', *loader, *model, *options]


def test_tool_prints_json(photos, tool, capsys):
    tool('retinanet_r50_fpn_1x_coco', '--from-anchors', '--json', '--lambda', 0.5, 1.5, *data_options(photos))
    result = json.loads(capsys.readouterr().out)
    # beta is that of the balanced block, for the stock block is L1
    expected = from_anchors(on(Config.fromfile(RETINANET), photos), LAMBDAS)
    (loss,) = result.pop('losses').values()
    assert loss == dict(
        positives=expected.positives('bbox_head.loss_bbox'),
        w_loc=[dict(zip(('lambda', 'w_loc'), p)) for p in zip(LAMBDAS, expected.w_loc('bbox_head.loss_bbox'))],
    )
    assert result == dict(config='retinanet_r50_fpn_1x_coco', source='anchors', seed=0, batches=2, images=3)


def test_tool_prints_a_table(photos, tool, capsys):
    options = data_options(photos, 'model.backbone.init_cfg=None', 'randomness.seed=5')
    tool(RETINANET, '--lambda', 1.5, '--batches', 2, *options)
    cfg = on(Config.fromfile(RETINANET), photos)
    cfg.model.backbone.init_cfg = None
    out = capsys.readouterr().out.splitlines()
    expected = from_first_batches(cfg, [1.5], num_batches=2, seed=5)
    assert out[1:] == [
        'weights of a new training, seed 5; 3 images in 2 batches',
        '',
        '   lambda  bbox_head.loss_bbox',
        f'      1.5  {expected.w_loc("bbox_head.loss_bbox")[0]:>19.3f}',
        f'positives  {expected.positives("bbox_head.loss_bbox"):>19}',
    ]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([FASTER_RCNN, '--from-anchors'], 'has no anchors of its own'),
        (['no-such-config'], 'no-such-config is neither a config file nor the name'),
        (
            [RETINANET, '--from-anchors', '--cfg-options', 'train_dataloader.dataset.data_root=nowhere/'],
            'no annotation',
        ),
    ],
)
def test_tool_says_what_is_wrong(photos, tool, arguments, message):
    options = [] if '--cfg-options' in arguments else data_options(photos)
    with pytest.raises(SystemExit, match=message):
        tool(*arguments, *options)


@pytest.mark.parametrize(
    'arguments', [['--images', 3], ['--batches', 0], ['--lambda', -1], ['--batches', 2, '--from-anchors']]
)
def test_tool_refuses_arguments(tool, arguments, capsys):
    with pytest.raises(SystemExit, match='2'):
        tool(RETINANET, *arguments)
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.slow
def test_standard_output_holds_the_json_alone(photos):
    command = [sys.executable, ROOT / 'tools' / 'calibrate_loc_weight.py', RETINANET, '--from-anchors', '--json']
    done = subprocess.run(
        [*map(str, command), *data_options(photos)], capture_output=True, text=True, timeout=300, check=True
    )
    assert json.loads(done.stdout)['images'] == 3

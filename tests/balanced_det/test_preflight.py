"""Bad configs stop before a training starts, with the value, the key and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config

from balanced_det.preflight import (
    ConfigProblem,
    check_arguments,
    check_classes,
    check_config,
    check_files,
    check_num_classes,
)

CONFIG = Path(__file__).parents[2] / 'configs' / 'demo' / 'retinanet_r18_fpn_iou-balanced_digit-scenes.py'
VOC_CONFIG = CONFIG.parents[1] / 'iou_balanced' / 'bccd' / 'retinanet_r18_fpn_iou-balanced-1x_bccd.py'


@pytest.fixture
def data_root(tmp_path):
    """An empty digit set, enough for the checks."""
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        content = dict(images=[], annotations=[], categories=[dict(id=1, name='digit')])
        (tmp_path / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return tmp_path


def config(data_root, **options):
    cfg = Config.fromfile(CONFIG)
    loaders = ('train_dataloader', 'val_dataloader')
    cfg.merge_from_dict({f'{loader}.dataset.data_root': str(data_root) for loader in loaders})
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def test_good_config_passes(data_root):
    check_config(config(data_root))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(model__bbox_head__loss_cls__type='IoUBalancedFocal'),
            r"model.bbox_head.loss_cls.type='IoUBalancedFocal' is not a registered loss: did you mean IoUBalancedFoc",
        ),
        (dict(model__bbox_head__loss_cls__type='Zzz'), 'custom_imports'),
        (dict(model__bbox_head__loss_cls__eta=-1), r'model.bbox_head.loss_cls: eta=-1 \(config key loss_cls.eta\)'),
        (dict(model__bbox_head__loss_bbox__lambda_=float('nan')), 'model.bbox_head.loss_bbox: lambda_=nan'),
        (dict(model__bbox_head__loss_bbox__lamda=1.5), "model.bbox_head.loss_bbox: .*'lamda'"),
        (
            dict(model__bbox_head__loss_bbox__target_stds=(0.1, 0.1, 0.2, 0.2)),
            r'set loss_bbox.target_stds=\(1.0, 1.0, 1.0, 1.0\)',
        ),
        (dict(model__bbox_head__num_classes=10), r'model.bbox_head.num_classes=10, but train_dataloader.dataset.*1'),
        (
            dict(train_dataloader__dataset__ann_file='annotations/nope.json'),
            r"no annotation file .*nope.json .*train_dataloader.dataset.ann_file='annotations/nope.json'.*ln -s",
        ),
        (
            dict(val_dataloader__dataset__data_root='/nowhere'),
            r"val_dataloader.dataset.data_root='/nowhere'.*--cfg-options val_dataloader.dataset.data_root=",
        ),
        (dict(train_dataloader__dataset__data_prefix__img='images'), r"data_prefix.img='images'"),
        (
            dict(train_dataloader__dataset__metainfo=dict(classes=('digit', 'letter'))),
            r"names \['letter'\], which the annotations do not have; they have \['digit'\]",
        ),
    ],
)
def test_bad_config(data_root, options, message):
    with pytest.raises(ConfigProblem, match=message):
        check_config(config(data_root, **options))


def test_target_stds_are_checked_in_a_stock_head(data_root):
    cfg = config(data_root)
    cfg.model.bbox_head.type = 'RetinaHead'
    cfg.model.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True)
    check_config(cfg)
    cfg.model.bbox_head.loss_bbox.target_stds = (0.1, 0.1, 0.2, 0.2)
    with pytest.raises(ConfigProblem, match=r'RetinaHead: loss_bbox.target_stds=\(0.1, 0.1, 0.2, 0.2\)'):
        check_config(cfg)


def test_classes_of_a_voc_set(tmp_path):
    (tmp_path / 'ImageSets' / 'Main').mkdir(parents=True)
    (tmp_path / 'Annotations').mkdir()
    for split in ('train', 'val'):
        (tmp_path / 'ImageSets' / 'Main' / f'{split}.txt').write_text('a\n')
    (tmp_path / 'Annotations' / 'a.xml').write_text('<a><object><name>cell</name></object></a>')
    cfg = Config.fromfile(VOC_CONFIG)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(tmp_path)
    with pytest.raises(ConfigProblem, match=r"names \['RBC', 'WBC', 'Platelets'\].*they have \['cell'\]"):
        check_config(cfg)
    # A class that the files at hand lack may be in others.
    (tmp_path / 'Annotations' / 'a.xml').write_text('<a><object><name>RBC</name></object></a>')
    check_config(cfg)
    # So it is where the classes are those of the dataset's type.
    (tmp_path / 'Annotations' / 'a.xml').write_text('<a><object><name>dog</name></object></a>')
    cfg.model.bbox_head.num_classes = 20
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        del loader.dataset.metainfo
        loader.dataset.type = 'VOCDataset'
    check_config(cfg)


def test_arguments_name_the_config(data_root):
    with pytest.raises(SystemExit, match=r'nope\.py: no such config file; the current folder is'):
        check_arguments(['nope.py', '--work-dir', 'out'])
    bad = f'train_dataloader.dataset.data_root={data_root / "elsewhere"}'
    with pytest.raises(SystemExit, match=r'retinanet_r18_fpn_iou-balanced_digit-scenes.py: no annotation file'):
        check_arguments(['--work-dir', 'out', str(CONFIG), '--resume', '--amp', '--cfg-options', bad])
    check_arguments(['--help'])


def test_what_is_not_checked(data_root, monkeypatch):
    # A remote store, a head that has classes of its own, and the processes beside the first.
    cfg = config(data_root, train_dataloader__dataset__data_root='s3://bucket/')
    cfg.train_dataloader.dataset.backend_args = dict(backend='petrel')
    cfg.model.semantic_head = dict(num_classes=183, loss_seg=dict(type='CrossEntropyLoss'))
    check_classes('train_dataloader.dataset', cfg.train_dataloader.dataset)
    check_num_classes('train_dataloader.dataset', cfg.train_dataloader.dataset, cfg.model)
    check_files('train_dataloader.dataset', cfg.train_dataloader.dataset)
    monkeypatch.setenv('RANK', '1')
    check_arguments(['nope.py'])


def test_blocks_of_mmdet_and_other_libraries_are_theirs(data_root):
    # DETR takes bg_cls_weight out of its block before it builds the loss; mmpretrain need not be installed.
    cfg = config(data_root)
    cfg.model.bbox_head.update(
        type='RetinaHead',
        loss_bbox=dict(type='L1Loss'),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, bg_cls_weight=0.1),
        num_classes=256,
    )
    cfg.model.reid = dict(loss_cls=dict(type='mmpretrain.CrossEntropyLoss'))
    check_config(cfg)


def test_remote_paths_classes_as_types_and_json_lines(data_root):
    cfg = config(data_root, val_dataloader__dataset__data_root='http://host/')
    cfg.val_dataloader.dataset.ann_file = 'a.json'
    cfg.train_dataloader.dataset.type = CocoDataset  # as a config in Python style has it
    cfg.train_dataloader.dataset.metainfo = dict(classes=('digit',))
    check_config(cfg)
    (data_root / 'annotations' / 'train.json').write_text('{"a": 1}\n{"b": 2}\n')
    check_config(cfg)


def test_what_mmdet_misses_is_left_to_mmdet(data_root):
    # Builds under a launcher alone.
    check_config(config(data_root, model__backbone__norm_cfg=dict(type='MMSyncBN')))


def test_resume_may_name_a_checkpoint(tmp_path):
    with pytest.raises(SystemExit, match=r'nope\.py: no such config'):
        check_arguments(['--resume', 'a.pth', 'nope.py'])


@pytest.mark.parametrize('head', ['RetinaHead', 'RetinaSepBNHead'])
def test_balanced_classification_in_a_stock_head(data_root, head):
    options = dict(model__bbox_head__type=head)
    if head == 'RetinaSepBNHead':
        options['model__bbox_head__num_ins'] = 3
    with pytest.raises(ConfigProblem, match=f'needs the IoU .* {head} does not hand over: set the head to its'):
        check_config(config(data_root, **options))

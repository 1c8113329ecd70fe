"""Bad configs stop before a training starts, with the value, the key and the remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, checkpoint

from balanced_det.preflight import (
    ConfigProblem,
    WeightsUnavailable,
    check_arguments,
    check_classes,
    check_config,
    check_files,
    check_num_classes,
    check_weights,
    explain_failed_downloads,
    load_config,
    name_the_key,
)

CONFIG = Path(__file__).parents[2] / 'configs' / 'demo' / 'retinanet_r18_fpn_iou-balanced_digit-scenes.py'
VOC_CONFIG = CONFIG.parents[1] / 'iou_balanced' / 'bccd' / 'retinanet_r18_fpn_iou-balanced-1x_bccd.py'
FINE_TUNED = (  # from the weights of load_from alone, a part of which they keep
    'iou_balanced/cityscapes/retinanet_r50_fpn_smooth-l1-1x_cityscapes.py',
    'dssd/dssd320_r50_stage-1_voc0712.py',
    'dssd/dssd320_r50_stage-2_voc0712.py',
)


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


def test_a_part_of_a_config_cannot_train():
    part = CONFIG.parents[1] / '_base_' / 'runtime.py'
    with pytest.raises(SystemExit, match=r'runtime\.py: no model in it: a part of other configs'):
        check_arguments([str(part)])
    with pytest.raises(ConfigProblem, match='no train_dataloader in it'):
        check_config(Config(dict(model=dict())))


def test_a_config_without_training_data_can_be_read(tmp_path):
    (tmp_path / 'c.py').write_text("model = dict(type='RetinaNet')\n")
    assert load_config(str(tmp_path / 'c.py')).model == dict(type='RetinaNet')


def test_config_that_cannot_be_read(tmp_path):
    (tmp_path / 'c.py').write_text("_base_ = './base.py'\n")
    with pytest.raises(SystemExit, match=rf'^{tmp_path}/c\.py: this config or one in .* cannot be read: .*/base\.py'):
        check_arguments([str(tmp_path / 'c.py')])
    (tmp_path / 'base.py').write_text('a = 1\nmodel = dict(type=)\n')
    with pytest.raises(
        SystemExit, match=rf"^{tmp_path}/c\.py: .*has a syntax error in line 2, 'model = dict\(type=\)': "
    ):
        check_arguments([str(tmp_path / 'c.py')])


@pytest.mark.parametrize('head', ['RetinaHead', 'RetinaSepBNHead'])
def test_balanced_classification_in_a_stock_head(data_root, head):
    options = dict(model__bbox_head__type=head)
    if head == 'RetinaSepBNHead':
        options['model__bbox_head__num_ins'] = 3
    with pytest.raises(ConfigProblem, match=f'needs the IoU .* {head} does not hand over: set the head to its'):
        check_config(config(data_root, **options))


# ------------------------------------------------------------------------------------------------------- weights


def pretrained(path, **backbone):
    return Config(dict(model=dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=str(path)), **backbone))))


def test_local_weights_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (
        rf"model\.backbone\.init_cfg\.checkpoint='r\.pth': there is no file {tmp_path}/r\.pth: name another file with "
        r'--cfg-options model\.backbone\.init_cfg\.checkpoint=PATH; or do without: --cfg-options '
        r'model\.backbone\.init_cfg=None'
    )
    with pytest.raises(ConfigProblem, match=f'{message}$'):
        check_weights(pretrained('r.pth'))
    fixed = r' model\.backbone\.frozen_stages=-1 model\.backbone\.norm_eval=False'
    with pytest.raises(ConfigProblem, match=f'{message}{fixed}$'):
        check_weights(pretrained('r.pth', frozen_stages=1, norm_eval=True))
    (tmp_path / 'r.pth').touch()
    check_weights(pretrained('r.pth'))
    monkeypatch.setenv('HOME', str(tmp_path))
    check_weights(pretrained('~/r.pth'))  # as mmengine takes it
    check_weights(pretrained('torchvision://resnet18'))


def test_weights_in_a_list_of_blocks():
    blocks = [dict(type='Kaiming'), dict(type='Pretrained', checkpoint='/nowhere/r.pth')]
    cfg = Config(dict(model=dict(neck=[dict(init_cfg=blocks, norm_eval=True)])))
    with pytest.raises(
        ConfigProblem, match=r'model\.neck\.0\.init_cfg\.1\.checkpoint=.*neck\.0\.init_cfg=None .*norm_eval'
    ):
        check_weights(cfg)


def test_load_from_names_the_config_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIG.parents[2])
    cfg = Config.fromfile(CONFIG)
    cfg.load_from = 'work_dirs/retinanet_r18_fpn_digit-scenes/iter_0.pth'
    with pytest.raises(ConfigProblem) as problem:
        check_weights(cfg)
    assert f'{Path.cwd()}/{cfg.load_from}' in str(problem.value)
    assert '(python tools/train.py configs/demo/retinanet_r18_fpn_digit-scenes.py)' in str(problem.value)
    assert '--cfg-options load_from=PATH' in str(problem.value)
    cfg.load_from = str(tmp_path / 'mine.pth')
    with pytest.raises(ConfigProblem, match=r"load_from='.*mine\.pth': there is no file .*mine\.pth: name another"):
        check_weights(cfg)


@pytest.mark.parametrize('name', FINE_TUNED)
def test_frozen_parts_need_the_weights_of_load_from(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigProblem, match=r'^load_from=.*name another file with --cfg-options load_from=PATH$'):
        check_weights(Config.fromfile(CONFIG.parents[1] / name))


def test_load_from_may_be_left_where_nothing_random_stays_fixed():
    # Other weights for the frozen part, or no frozen part.
    for cfg in (pretrained('torchvision://resnet18', frozen_stages=1, norm_eval=True), Config(dict(model=dict()))):
        cfg.load_from = '/nowhere.pth'
        with pytest.raises(ConfigProblem, match=r'or do without: --cfg-options load_from=None$'):
            check_weights(cfg)


def test_nothing_to_resume(data_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaders = ('train_dataloader', 'val_dataloader')
    options = ['--cfg-options', *(f'{loader}.dataset.data_root={data_root}' for loader in loaders)]
    resume = [str(CONFIG), '--resume', *options]
    check_arguments(resume)  # a first start: no weights are lost
    with pytest.raises(
        SystemExit,
        match=rf'no last_checkpoint in {tmp_path}/work_dirs/{CONFIG.stem}: nothing to resu.*'
        r"load_from='/w\.pth'; leave --resume away",
    ):
        check_arguments([*resume, 'load_from=/w.pth'])
    with pytest.raises(SystemExit, match=rf'no last_checkpoint in {tmp_path}/of_config: '):
        check_arguments([*resume, 'load_from=/w.pth', 'work_dir=of_config'])
    with pytest.raises(SystemExit, match=rf'no last_checkpoint in {tmp_path}/of_user: '):
        check_arguments([*resume, 'load_from=/w.pth', 'work_dir=of_config', '--work-dir', 'of_user'])
    (tmp_path / 'of_user').mkdir()
    (tmp_path / 'of_user' / 'last_checkpoint').write_text('of_user/epoch_1.pth')
    check_arguments([*resume, 'load_from=/w.pth', '--work-dir', 'of_user'])  # mmdet then does not read load_from


def test_checkpoint_to_resume_from(data_root, tmp_path):
    options = [f'{loader}.dataset.data_root={data_root}' for loader in ('train_dataloader', 'val_dataloader')]
    options = ['--cfg-options', *options, 'load_from=/nowhere.pth']
    with pytest.raises(SystemExit, match=rf'--resume names no file {tmp_path}/no\.pth; without a path'):
        check_arguments([str(CONFIG), '--resume', f'{tmp_path}/no.pth', *options])
    with pytest.raises(SystemExit, match=r"load_from='/nowhere\.pth'"):
        check_arguments([str(CONFIG), *options])
    (tmp_path / 'no.pth').touch()
    check_arguments([str(CONFIG), '--resume', f'{tmp_path}/no.pth', *options])


@pytest.fixture
def offline(monkeypatch):
    def fail(*args, **kwargs):
        raise URLError('no route to host')

    monkeypatch.setattr(checkpoint, 'load_url', fail)
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
    explain_failed_downloads()


@pytest.mark.parametrize(
    ('name', 'url'),
    [
        ('https://host/folder/r18.pth?raw=1', 'https://host/folder/r18.pth?raw=1'),
        ('torchvision://resnet18', 'https://host/folder/r18.pth'),
        ('open-mmlab://r18', 'https://host/folder/r18.pth'),
        ('mmcls://r18', 'https://host/folder/r18.pth'),
    ],
)
def test_a_failed_download_says_where_the_file_belongs(offline, monkeypatch, name, url):
    tables = dict(get_torchvision_models='resnet18', get_external_models='r18', get_mmcls_models='r18')
    for table, key in tables.items():
        monkeypatch.setattr(checkpoint, table, lambda key=key: {key: 'https://host/folder/r18.pth'})
    with pytest.raises(WeightsUnavailable) as caught:
        CheckpointLoader.load_checkpoint(name)
    message = name_the_key(caught.value, pretrained(name))
    assert message.startswith(f'model.backbone.init_cfg.checkpoint={name}: {url} could not be downloaded')
    assert 'no route to host' in message
    assert f'put the file at {torch.hub.get_dir()}/checkpoints/r18.pth' in message
    assert message.endswith('do without: --cfg-options model.backbone.init_cfg=None')
    assert isinstance(caught.value.__cause__, URLError)
    # A module may load weights that its config does not name.
    assert name_the_key(caught.value, pretrained('other.pth')).endswith('name a file on this machine in its place')


def test_weights_of_torchvision_without_torchvision(offline, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    with pytest.raises(WeightsUnavailable) as caught:
        CheckpointLoader.load_checkpoint('torchvision://resnet18')
    message = str(caught.value)
    assert message.startswith(
        'torchvision://resnet18: mmengine takes these weights from torchvision, which cannot be imported'
    )
    assert 'install the build that belongs to your torch; or download https://download.pytorch.org/models/r' in message


@pytest.mark.slow
def test_a_training_that_cannot_download_ends_with_the_message(shared_data, tmp_path):
    url = 'http://127.0.0.1:9/weights/r18.pth'  # nothing listens there
    tool = CONFIG.parents[2] / 'tools' / 'train.py'
    options = [f'model.backbone.init_cfg.checkpoint={url}', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', 'train_dataloader.dataset.indices=4']
    done = subprocess.run(
        [sys.executable, tool, VOC_CONFIG, '--work-dir', tmp_path, '--cfg-options', *options],
        env=dict(os.environ, BCCD_ROOT=f'{shared_data}/bccd/', TORCH_HOME=str(tmp_path), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert f'{VOC_CONFIG}: model.backbone.init_cfg.checkpoint={url}: {url} could not be downloaded' in done.stderr
    assert f'put the file at {tmp_path}/hub/checkpoints/r18.pth' in done.stderr
    assert 'model.backbone.init_cfg=None model.backbone.frozen_stages=-1 model.backbone.norm_eval=False' in done.stderr

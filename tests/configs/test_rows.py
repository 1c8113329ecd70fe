"""Each row of the papers' tables has the config that it names, and each config of the papers' folders is of a row."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict

import pytest
from config_files import CONFIGS, OF_PAPERS, TEST_DEV, Name, head, read, without_losses

from balanced_det.papers import rows, tables
from balanced_det.swap.files import _stock_folder

ROOT = CONFIGS.parent
OWN = [row for row in rows() if not row.quoted]
QUOTED = [row for row in rows() if row.quoted]
# Printed names and those of the config files, the longer ones first.
DETECTORS = {
    'Faster R-CNN': 'faster-rcnn',
    'Mask R-CNN': 'mask-rcnn',
    'FoveaBox': 'fovea',
    'RefineDet': 'refinedet',
    'RetinaNet': 'retinanet',
    'DSSD': 'dssd',
    'SSD': 'ssd',
}
SPLITS = {
    'test-dev': 'annotations/image_info_test-dev2017.json',
    'val2017': 'annotations/instances_val2017.json',
    'test2007': 'VOC2007/ImageSets/Main/test.txt',
    'val': 'annotations/instancesonly_filtered_gtFine_val.json',
}

of_own_rows = pytest.mark.parametrize('row', OWN, ids=[row.key for row in OWN])


def config(row):
    return read(ROOT / row.config)


@of_own_rows
class TestOwnRow:
    def test_its_files_are_there(self, row):
        for path in (row.config, row.train_config, row.test_config):
            assert (ROOT / path).is_file(), path
        assert (ROOT / row.config) in OF_PAPERS

    def test_detector(self, row):
        name = Name.of(ROOT / row.config)
        printed = next(printed for printed in DETECTORS if printed in row.model)
        assert name.detector == DETECTORS[printed]
        size = re.search(r'(?:SSD|RefineDet)(\d+)', row.model)
        # Table 5 of paper A prints SSD500; its other tables say SSD512, and the authors' config is that of 512.
        assert name.size == (int(size.group(1).replace('500', '512')) if size else None)

    def test_backbone(self, row):
        backbone = config(row).model.backbone
        cardinality = re.search(r'(\d+)x(\d+)d', row.backbone)
        depth = int(
            re.findall(r'\d+', row.backbone.replace(cardinality.group(), '') if cardinality else row.backbone)[0]
        )
        if row.backbone.startswith('VGG'):
            assert (backbone.type, backbone.depth) == ('SSDVGG', depth)
        elif row.backbone.startswith('ResNeXt'):
            # Paper B's text on its Table 2: ResNeXt-101-32x8d.
            groups, width = map(int, cardinality.groups()) if cardinality else (32, 8)
            assert (backbone.type, backbone.depth, backbone.groups, backbone.base_width) == (
                'ResNeXt',
                depth,
                groups,
                width,
            )
        else:
            assert (backbone.type, backbone.depth) == ('ResNet', depth)
        assert 'FPN' not in row.backbone or Name.of(ROOT / row.config).fpn

    def test_schedule(self, row):
        words = Name.of(ROOT / row.config).settings.split('-')
        if row.schedule == '1x':
            assert '1x' in words
        elif row.schedule == '120e':
            cfg = config(row)
            assert cfg.train_cfg.max_epochs * cfg.train_dataloader.dataset.times == 120
        else:
            assert row.schedule in ('default', '-')

    def test_data_and_split(self, row):
        assert Name.of(ROOT / row.config).data == row.data
        assert (row.split == 'test-dev') == (ROOT / row.test_config in TEST_DEV)
        cfg = read(ROOT / row.test_config)
        assert cfg.test_dataloader.dataset.ann_file == SPLITS[row.split]
        if row.data != 'voc0712':  # VOC's evaluator takes the boxes from the set
            assert cfg.test_evaluator.ann_file == cfg.data_root + SPLITS[row.split]

    def test_iou_balanced_losses(self, row):
        block = head(config(row).model)
        # An exponent of 0 makes all weights 1: the stock loss.
        for key, loss, name in (('eta', 'loss_cls', 'eta'), ('lambda', 'loss_bbox', 'lambda_')):
            balanced = block.get(loss, {}).get('type', '').startswith('IoUBalanced')
            assert balanced == bool(row.hyper.get(key))
            if balanced:
                assert block[loss][name] == row.hyper[key]
        if 'w_loc' in row.hyper:
            assert block.loss_bbox.loss_weight == row.hyper['w_loc']

    def test_w_loc_is_measured_where_none_was_printed(self, row):
        measured = any(hook.type == 'LocWeightCalibrationHook' for hook in config(row).custom_hooks)
        assert measured == (bool(row.hyper.get('lambda')) and 'w_loc' not in row.hyper)

    def test_harmonic_det(self, row):
        joint = head(config(row).model).get('loss_joint')
        assert bool(joint) == row.hyper.get('harmonic', False)
        if joint:
            assert {key: joint.get(key, True) for key in ('harmonic', 'tc', 'hiou')} == {
                key: row.hyper[key] for key in ('harmonic', 'tc', 'hiou')
            }
            if joint.get('hiou', True):
                assert (joint.alpha, joint.gamma) == (row.hyper['alpha'], row.hyper['gamma'])


@pytest.mark.parametrize('row', QUOTED, ids=[row.key for row in QUOTED])
def test_a_quoted_row_names_a_config_of_mmdet_or_none(row):
    assert not row.hyper
    if row.config is not None:
        package, name = row.config.split('::')
        assert package == 'mmdet'
        assert (_stock_folder() / name).is_file()


@pytest.mark.parametrize('table', tables().values(), ids=tables())
def test_rows_of_a_table_differ_in_the_losses_alone(table):
    # Of one detector, backbone and schedule: baseline and method, the steps of an ablation, the values of a sweep.
    groups = defaultdict(list)
    for row in table.rows:
        if not row.quoted:
            path = ROOT / row.train_config
            groups[dataclasses.replace(Name.of(path), losses='')].append((row, path))
    for group in groups.values():
        of_methods = [row.key for row, _ in group if any(row.hyper.values())]
        assert len({path for _, path in group}) > 1 or not of_methods, f'nothing to compare {of_methods} with'
        first, *others = (without_losses(read(path)) for _, path in group)
        for other, (row, _) in zip(others, group[1:]):
            assert other == first, row.key


def test_every_config_is_of_a_row():
    of_rows = {ROOT / path for row in OWN for path in (row.config, row.train_config, row.test_config)}
    assert sorted(of_rows) == sorted([*OF_PAPERS, *TEST_DEV])

"""Cityscapes: what is found, what is written, broken maps, interruptions."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from mmdet.datasets import CityscapesDataset
from PIL import Image
from preparation_cases import cut, picture, problems

from balanced_det.datasets.preparation import cityscapes as cityscapes_module
from balanced_det.datasets.preparation import prepare_cityscapes


class Label(NamedTuple):
    id: int
    name: str
    hasInstances: bool
    ignoreInEval: bool


# Of the official table (cityscapesscripts.helpers.labels): what the generated maps need, and the categories.
LABELS = [
    Label(7, 'road', False, False),
    *(Label(24 + n, name, True, False) for n, name in enumerate(('person', 'rider', 'car', 'truck', 'bus'))),
    *(Label(29 + n, name, True, True) for n, name in enumerate(('caravan', 'trailer'))),
    *(Label(31 + n, name, True, False) for n, name in enumerate(('train', 'motorcycle', 'bicycle'))),
]


@pytest.fixture
def labels(monkeypatch):
    """cityscapesscripts, or the part of its table that is used here."""
    cityscapes_module._converter.cache_clear()
    if importlib.util.find_spec('cityscapesscripts') is None:
        names = ('cityscapesscripts', 'cityscapesscripts.helpers', 'cityscapesscripts.helpers.labels')
        modules = {name: ModuleType(name) for name in names}
        modules[names[1]].labels = modules[names[2]]
        modules[names[2]].labels = LABELS
        modules[names[2]].id2label = {label.id: label for label in LABELS}
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
    yield
    cityscapes_module._converter.cache_clear()


def test_labels_here_are_the_official_ones():
    official = pytest.importorskip('cityscapesscripts.helpers.labels')
    for label in LABELS:
        assert tuple(getattr(official.id2label[label.id], field) for field in Label._fields) == label


def instance_map(path: Path, *rectangles: tuple, road: int = 7) -> None:
    """Writes 64 x 32 pixels of road with (instance id, left, top, right, bottom) on it, 16 bit."""
    values = np.full((32, 64), road, np.uint16)
    for instance, left, top, right, bottom in rectangles:
        values[top:bottom, left:right] = instance
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def city(tmp_path, labels) -> Path:
    """Two cities with three training images, and one validation image."""
    maps = {
        # a person, a car half covered by another; a group of persons (crowd); a caravan, which is not evaluated
        'train/aachen/aachen_000000_000019': [
            (24000, 2, 3, 12, 23),
            (26000, 20, 10, 40, 20),
            (26001, 30, 10, 50, 20),
            (24, 52, 0, 60, 8),
            (29000, 0, 28, 4, 32),
        ],
        'train/aachen/aachen_000001_000019': [],
        'train/bochum/bochum_000000_000313': [(33000, 0, 0, 5, 4), (33000, 10, 0, 15, 4)],  # in two pieces
        'val/munster/munster_000000_000019': [(25007, 1, 1, 3, 5)],
    }
    for stem, rectangles in maps.items():
        picture(tmp_path / 'leftImg8bit' / f'{stem}_leftImg8bit.png', 64, 32)
        instance_map(tmp_path / 'gtFine' / f'{stem}_gtFine_instanceIds.png', *rectangles)
        picture(tmp_path / 'gtFine' / f'{stem}_gtFine_labelIds.png', 64, 32)
    return tmp_path


TRAIN = 'annotations/instancesonly_filtered_gtFine_train.json'
VAL = 'annotations/instancesonly_filtered_gtFine_val.json'


@pytest.mark.parametrize('workers', [1, 2])
def test_cityscapes_by_hand_derived_numbers(city, workers):
    report = prepare_cityscapes(city, subset=True, workers=workers)
    assert report.complete
    assert [check.found for check in report.checks] == ['3 files'] * 3 + ['3 images'] + ['1 files'] * 3 + ['1 images']
    content = json.loads((city / TRAIN).read_text())
    assert [(image['file_name'], image['width'], image['height']) for image in content['images']] == [
        ('aachen/aachen_000000_000019_leftImg8bit.png', 64, 32),
        ('aachen/aachen_000001_000019_leftImg8bit.png', 64, 32),
        ('bochum/bochum_000000_000313_leftImg8bit.png', 64, 32),
    ]
    assert [(category['id'], category['name']) for category in content['categories']] == [
        (label.id, label.name) for label in LABELS if label.hasInstances and not label.ignoreInEval
    ]
    ids = [image['id'] for image in content['images']]
    keys = ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd')
    assert [[annotation[key] for key in keys] for annotation in content['annotations']] == [
        [1, ids[0], 24, [52, 0, 8, 8], 64, 1],
        [2, ids[0], 24, [2, 3, 10, 20], 200, 0],
        [3, ids[0], 26, [20, 10, 10, 10], 100, 0],
        [4, ids[0], 26, [30, 10, 20, 10], 200, 0],
        [5, ids[2], 33, [0, 0, 15, 4], 40, 0],
    ]


def test_mmdet_reads_the_cityscapes_file(city):
    prepare_cityscapes(city, subset=True, workers=1)
    dataset = CityscapesDataset(
        data_root=str(city), ann_file=TRAIN, data_prefix=dict(img='leftImg8bit/train/'), pipeline=[]
    )
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).is_file()
    assert [(item['bbox_label'], item['ignore_flag']) for item in info['instances']] == [(0, 1), (0, 0), (2, 0), (2, 0)]


def test_counts_of_cityscapes_are_demanded(city):
    report = prepare_cityscapes(city)
    texts = problems(report)['leftImg8bit/train/*/*_leftImg8bit.png']
    assert [text.split(' (')[0] for text in texts] == ['3 files, expected 2975']
    texts = problems(report)['gtFine/val/*/*_gtFine_instanceIds.png']
    assert [text.split(' (')[0] for text in texts] == ['1 files, expected 500']
    assert 'leftImg8bit_trainvaltest.zip of https://www.cityscapes-dataset.com/downloads/' in str(report)
    assert not (city / 'annotations').exists()


def test_missing_and_broken_files_of_cityscapes(city):
    aachen = 'aachen/aachen_000000_000019'
    (city / f'leftImg8bit/train/{aachen}_leftImg8bit.png').unlink()
    (city / f'gtFine/train/{aachen}_gtFine_labelIds.png').write_bytes(b'')
    shutil.rmtree(city / 'gtFine/val')
    assert problems(prepare_cityscapes(city, subset=True)) == {
        'leftImg8bit/train/*/*_leftImg8bit.png': [f'1 of 3 are missing: {aachen}_leftImg8bit.png'],
        'gtFine/train/*/*_gtFine_labelIds.png': [
            f'1 of 3 are empty (0 bytes, half copied): {aachen}_gtFine_labelIds.png'
        ],
        TRAIN: ['not made: first mend what it is made from'],
        'gtFine/val/*/*_gtFine_instanceIds.png': ['no such folder'],
        'gtFine/val/*/*_gtFine_labelIds.png': ['no such folder'],
        VAL: ['not made: first mend what it is made from'],
    }


def test_half_copied_and_wrong_instance_maps(city):
    """mmdet's converter says `TypeError` and `KeyError` and does not name the file."""
    folder = city / 'gtFine/train'
    noise = np.random.default_rng(0).integers(0, 60000, (32, 64)).astype(np.uint16)
    Image.fromarray(noise).save(folder / 'bochum/bochum_000000_000313_gtFine_instanceIds.png')
    picture(folder / 'aachen/aachen_000001_000019_gtFine_instanceIds.png', 64, 32)
    cut(folder / 'aachen/aachen_000001_000019_gtFine_instanceIds.png')
    report = prepare_cityscapes(city, subset=True, workers=1)
    (problem,) = problems(report)[TRAIN]
    assert problem.startswith('2 of 3 files cannot be converted: ')
    assert 'aachen_000001_000019_gtFine_instanceIds.png: image file is truncated' in problem
    assert 'bochum_000000_000313_gtFine_instanceIds.png: no instance map of Cityscapes (KeyError' in problem
    assert not (city / TRAIN).exists()
    assert (city / VAL).exists()


def test_interrupted_cityscapes_conversion_goes_on(city, count, monkeypatch):
    first = count(cityscapes_module, '_read_instances', interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        prepare_cityscapes(city, subset=True, workers=1)
    assert first == ['aachen_000000_000019_gtFine_instanceIds.png', 'aachen_000001_000019_gtFine_instanceIds.png']
    monkeypatch.setattr(cityscapes_module, '_read_instances', _never_for_aachen)
    assert prepare_cityscapes(city, subset=True, workers=1).complete
    assert len(json.loads((city / TRAIN).read_text())['annotations']) == 5
    assert [path.name for path in (city / 'annotations').glob('.*')] == []


_read_instances = cityscapes_module._read_instances


def _never_for_aachen(path):
    assert not path.name.startswith('aachen')
    return _read_instances(path)


def test_without_cityscapesscripts_the_command_is_named(city, monkeypatch):
    cityscapes_module._converter.cache_clear()
    for name in [name for name in sys.modules if name.startswith('cityscapesscripts')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'cityscapesscripts', None)
    report = prepare_cityscapes(city, subset=True)
    assert set(problems(report)) == {TRAIN, VAL}
    assert '`pip install cityscapesscripts`' in problems(report)[TRAIN][0]

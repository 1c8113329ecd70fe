"""Checks and conversions of COCO, VOC and Cityscapes: what is found, what is written, broken data, interruptions."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from metric_samples import evaluate, found, sample
from mmdet.datasets import CityscapesDataset, CocoDataset, VOCDataset, XMLDataset
from mmdet.evaluation.metrics import CocoMetric
from PIL import Image

from balanced_det.datasets.preparation import (
    PreparationError,
    check_coco,
    conversion,
    prepare_cityscapes,
    prepare_voc,
    voc_to_coco,
    write_json,
)
from balanced_det.datasets.preparation import cityscapes as cityscapes_module
from balanced_det.datasets.preparation import coco as coco_module
from balanced_det.datasets.preparation import voc as voc_module
from balanced_det.datasets.preparation.voc_xml import merged, read_xml
from balanced_det.evaluation import LocalizationCocoMetric, LocalizationVOCMetric

BLOOD_CELLS = ('RBC', 'WBC', 'Platelets')


@pytest.fixture
def bccd(request) -> Path:
    return Path(os.environ.get('BCCD_ROOT') or request.getfixturevalue('shared_data') / 'bccd')


@pytest.fixture
def coco_tiny(request) -> Path:
    return Path(os.environ.get('COCO_TINY_ROOT') or request.getfixturevalue('shared_data') / 'coco_tiny')


def rows(report) -> dict:
    return {check.what: check for check in report.checks}


def problems(report) -> dict:
    return {check.what: list(check.problems) for check in report.checks if check.problems}


def picture(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)


def cut(path: Path) -> None:
    """The first half of a file, as an interrupted copy leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def count(monkeypatch):
    """Replaces a function by itself, counted, that is interrupted at one of its calls."""

    def count(module: ModuleType, name: str, interrupt_at: int | None = None) -> list:
        function, calls = getattr(module, name), []

        def counted(path):
            if len(calls) + 1 == interrupt_at:
                raise KeyboardInterrupt
            calls.append(path.name)
            return function(path)

        monkeypatch.setattr(module, name, counted)
        return calls

    return count


# ---------------------------------------------------------------------------------------------- COCO


@pytest.fixture
def coco(tmp_path) -> Path:
    """Three training and two validation images with COCO's categories."""
    names = CocoDataset.METAINFO['classes']
    for split, ids in (('train', (1, 2, 3)), ('val', (4, 5))):
        images = [dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in ids]
        boxes = [dict(id=i, image_id=i, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0) for i in ids]
        content = dict(
            images=images, annotations=boxes, categories=[dict(id=n, name=x) for n, x in enumerate(names, 1)]
        )
        write_json(tmp_path / f'annotations/instances_{split}2017.json', content)
        for i in ids:
            picture(tmp_path / f'{split}2017' / f'{i}.jpg')
    return tmp_path


def test_coco_tiny_as_a_subset(coco_tiny):
    report = check_coco(coco_tiny, subset=True, deep=True, workers=1)
    assert report.complete
    assert [check.found for check in report.checks] == ['80 images'] * 4 + ['-']
    assert rows(report)['annotations/image_info_test-dev2017.json'].status == 'not there (optional)'


def test_counts_of_coco_are_demanded(coco):
    report = check_coco(coco)
    assert not report.complete
    for what, counts in (
        ('annotations/instances_train2017.json', '3 images, expected 118287'),
        ('train2017/', '3 images, expected 118287'),
        ('annotations/instances_val2017.json', '2 images, expected 5000'),
        ('val2017/', '2 images, expected 5000'),
    ):
        assert [text.split(' (')[0] for text in problems(report)[what]] == [counts]
    assert 'http://images.cocodataset.org/zips/val2017.zip' in str(report)


def test_coco_of_the_right_size_is_complete(coco, monkeypatch):
    small = [coco_module.SPLITS[0]._replace(images=3, files=3), coco_module.SPLITS[1]._replace(images=2, files=2)]
    monkeypatch.setattr(coco_module, 'SPLITS', small)
    assert check_coco(coco).complete
    picture(coco / 'val2017' / 'stranger.jpg')
    assert problems(check_coco(coco)) == {
        'val2017/': [
            '3 images, expected 2 (a part of the set on purpose? --subset)',
            '1 that annotations/instances_val2017.json does not list: stranger.jpg',
        ]
    }


def test_missing_empty_and_half_copied_images(coco):
    (coco / 'train2017/2.jpg').unlink()
    (coco / 'train2017/3.jpg').write_bytes(b'')
    cut(coco / 'val2017/5.jpg')
    half = ['1 of 3 are missing: 2.jpg', '1 of 3 are empty (0 bytes, half copied): 3.jpg']
    assert problems(check_coco(coco, subset=True)) == {'train2017/': half}
    deep = problems(check_coco(coco, subset=True, deep=True))
    assert deep['train2017/'] == half
    assert len(deep['val2017/']) == 1
    assert deep['val2017/'][0].startswith('1 of 2 are broken: 5.jpg (')


def test_missing_folder_and_many_missing_images(coco):
    shutil.rmtree(coco / 'val2017')
    write_json(
        coco / 'annotations/instances_train2017.json',
        {
            **json.loads((coco / 'annotations/instances_train2017.json').read_text()),
            'images': [dict(id=i, file_name=f'{i}.jpg') for i in range(1, 11)],
        },
    )
    assert problems(check_coco(coco, subset=True)) == {
        'train2017/': ['7 of 10 are missing: 4.jpg, 5.jpg, 6.jpg, 7.jpg, 8.jpg, ...'],
        'val2017/': ['no such folder'],
    }


def test_half_copied_and_foreign_json(coco):
    cut(coco / 'annotations/instances_train2017.json')
    (coco / 'annotations/instances_val2017.json').write_text('[]')
    (coco / 'annotations/image_info_test-dev2017.json').write_text('{"images": [{"id": 1}], "categories": []}')
    found_problems = problems(check_coco(coco, subset=True))
    assert found_problems['annotations/instances_train2017.json'][0].startswith('no json file, half copied? (')
    for split in ('instances_val2017', 'image_info_test-dev2017'):
        assert found_problems[f'annotations/{split}.json'] == [
            "no COCO annotation file: no list 'images' whose rows have id and file_name"
        ]
    assert found_problems['test2017/'] == ['no such folder']


def test_contradictions_in_an_annotation_file(coco):
    path = coco / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    content['images'][1]['id'] = 4
    content['annotations'][0]['category_id'] = 81
    content['categories'][0]['name'] = 'human'
    write_json(path, content)
    assert problems(check_coco(coco, subset=True))[f'annotations/{path.name}'] == [
        '80 categories, expected the 80 of COCO; differing: human, person',
        '1 images have the same id: 4',
        'boxes have 1 image ids that the file does not list: 5',
        'boxes have 1 category ids that the file does not list: 81',
    ]


# ----------------------------------------------------------------------------------------------- VOC


def xml(*objects: str, width=64, height=48) -> str:
    size = f'<size><width>{width}</width><height>{height}</height></size>'
    return f'<annotation>{size}{"".join(objects)}</annotation>'


def thing(name: str, corners: tuple, difficult: int | None = 0) -> str:
    flag = '' if difficult is None else f'<difficult>{difficult}</difficult>'
    sides = ''.join(f'<{side}>{x}</{side}>' for side, x in zip(('xmin', 'ymin', 'xmax', 'ymax'), corners))
    return f'<object><name>{name}</name>{flag}<bndbox>{sides}</bndbox></object>'


def plant(folder: Path, splits: dict[str, tuple], **annotations: str) -> Path:
    """A folder in VOC's format: an image and an annotation for each name of the splits."""
    for split, names in splits.items():
        path = folder / 'ImageSets/Main' / f'{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{name}\n' for name in names))
        for name in names:
            picture(folder / 'JPEGImages' / f'{name}.jpg')
            (folder / 'Annotations').mkdir(exist_ok=True)
            text = annotations.get(f'_{name}', xml(thing('cat', (1, 1, 11, 21))))
            (folder / 'Annotations' / f'{name}.xml').write_text(text)
    return folder


@pytest.fixture
def devkit(tmp_path) -> Path:
    """VOC with 2 + 1 training images and 1 test image; a dog is difficult."""
    cat, dog = thing('cat', (1, 1, 11, 21)), thing('dog', (5, 6, 15, 26), difficult=1)
    plant(tmp_path / 'VOC2007', dict(trainval=('a', 'b'), test=('c',)), _a=xml(cat, dog))
    plant(tmp_path / 'VOC2012', dict(trainval=('d',)), _d=xml(dog))
    return tmp_path


def linked(root: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ('Annotations', 'ImageSets', 'JPEGImages'):
        (folder / name).symlink_to(root.resolve() / name)
    return folder


def test_voc_is_converted_by_hand_derived_numbers(devkit):
    report = prepare_voc(devkit, subset=True)
    assert report.complete
    assert sorted(path.name for path in (devkit / 'annotations').iterdir()) == [
        'voc0712_trainval.json',
        'voc07_test.json',
        'voc07_trainval.json',
        'voc12_trainval.json',
    ]
    content = json.loads((devkit / 'annotations/voc0712_trainval.json').read_text())
    images = [(image['id'], image['file_name'], image['width'], image['height']) for image in content['images']]
    assert images == [
        (1, 'VOC2007/JPEGImages/a.jpg', 64, 48),
        (2, 'VOC2007/JPEGImages/b.jpg', 64, 48),
        (3, 'VOC2012/JPEGImages/d.jpg', 64, 48),
    ]
    assert [category['name'] for category in content['categories']] == [*VOCDataset.METAINFO['classes']]
    # cat and dog are the 8th and 12th class; VOC counts pixels from 1: corners (1, 1) and (11, 21) are 0, 0 and 10, 20
    keys = ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'ignore')
    assert [[annotation[key] for key in keys] for annotation in content['annotations']] == [
        [1, 1, 8, [0, 0, 10, 20], 200, 0, 0],
        [2, 1, 12, [4, 5, 10, 20], 200, 1, 0],
        [3, 2, 8, [0, 0, 10, 20], 200, 0, 0],
        [4, 3, 12, [4, 5, 10, 20], 200, 1, 0],
    ]
    assert content['annotations'][1]['segmentation'] == [[4, 5, 4, 25, 14, 25, 14, 5]]
    assert rows(report)['annotations/voc0712_trainval.json'].note == '4 boxes, 2 of them iscrowd'


def test_mmdet_trains_on_what_was_written(devkit):
    """Through mmdet's CocoDataset: a difficult box is ignored, one of zero size is not there."""
    flat = xml(thing('cat', (1, 1, 11, 21)), thing('cat', (7, 7, 7, 20)), thing('dog', (5, 6, 15, 26), difficult=1))
    (devkit / 'VOC2007/Annotations/a.xml').write_text(flat)
    report = prepare_voc(devkit, subset=True)
    note = rows(report)['annotations/voc07_trainval.json'].note
    assert note == '4 boxes, 1 of them iscrowd, 1 of zero size, which trainings leave out'
    dataset = CocoDataset(
        data_root=str(devkit),
        ann_file='annotations/voc07_trainval.json',
        data_prefix=dict(img=''),
        metainfo=VOCDataset.METAINFO,
        pipeline=[],
    )
    info = dataset.get_data_info(0)
    assert Path(info['img_path']) == devkit / 'VOC2007/JPEGImages/a.jpg'
    instances = [(item['bbox'], item['bbox_label'], item['ignore_flag']) for item in info['instances']]
    assert instances == [([0, 0, 10, 20], 7, 0), ([4, 5, 14, 25], 11, 1)]


def test_counts_of_voc_are_demanded_and_nothing_is_made_without(devkit):
    report = prepare_voc(devkit)
    for year, split, have, expected in (
        ('2007', 'trainval', 2, 5011),
        ('2007', 'test', 1, 4952),
        ('2012', 'trainval', 1, 11540),
    ):
        texts = problems(report)[f'VOC{year}/ImageSets/Main/{split}.txt']
        assert [text.split(' (')[0] for text in texts] == [f'{have} names, expected {expected}']
    for name in ('voc07_trainval', 'voc07_test', 'voc12_trainval', 'voc0712_trainval'):
        assert problems(report)[f'annotations/{name}.json'] == ['not made: first mend what it is made from']
    assert 'http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar' in str(report)
    assert not (devkit / 'annotations').exists()


def test_missing_year(devkit):
    shutil.rmtree(devkit / 'VOC2012')
    assert prepare_voc(devkit, subset=True).complete
    assert not (devkit / 'annotations/voc0712_trainval.json').exists()
    found_problems = problems(prepare_voc(devkit))
    assert found_problems['VOC2012/ImageSets/Main/trainval.txt'] == ['no such file']
    assert found_problems['VOC2012/JPEGImages/*.jpg of trainval'] == ['no such folder']


def test_folder_that_is_no_voc(devkit):
    with pytest.raises(PreparationError, match=r'neither a folder VOC2007 .* did you mean --root .*/devkit\?'):
        prepare_voc(devkit.rename(devkit.parent / 'devkit').parent)


@pytest.mark.parametrize(
    ('split', 'lines', 'problem'),
    [
        ('trainval', 'a\nb\na\n', '1 names are there more than once: a'),
        ('trainval', 'a  1\nb -1\n', "2 lines are no names of images: line 1 'a  1', line 2 'b -1'"),
        ('trainval', 'a\n\nb\n', "1 lines are no names of images: line 2 ''"),
        ('trainval', 'a\nd\n', '1 names are of VOC2012: d'),
        ('test', 'c\nb\n', '1 names are in the training lists too: b'),
        ('test', '', 'it is empty'),
    ],
)
def test_wrong_split_file(devkit, split, lines, problem):
    (devkit / 'VOC2007/ImageSets/Main' / f'{split}.txt').write_text(lines)
    report = prepare_voc(devkit, subset=True)
    assert any(text.startswith(problem) for text in problems(report)[f'VOC2007/ImageSets/Main/{split}.txt'])
    assert not (devkit / f'annotations/voc07_{split}.json').exists()


def test_names_without_annotation_or_image(devkit):
    (devkit / 'VOC2007/ImageSets/Main/trainval.txt').write_text('a\nb\nnobody\n')
    (devkit / 'VOC2007/JPEGImages/b.jpg').write_bytes(b'')
    found_problems = problems(prepare_voc(devkit, subset=True))
    assert found_problems['VOC2007/Annotations/*.xml of trainval'] == ['1 of 3 are missing: nobody.xml']
    assert found_problems['VOC2007/JPEGImages/*.jpg of trainval'] == [
        '1 of 3 are missing: nobody.jpg',
        '1 of 3 are empty (0 bytes, half copied): b.jpg',
    ]


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        (xml(thing('cat', (1, 1, 11, 21)))[:-30], 'mismatched tag|no element found|unclosed token'),
        ('<annotation/>', '<annotation> has no size/width'),
        (xml(width=0), 'an image of 0 x 48 pixels'),
        (xml('<object><name>cat</name></object>'), '<object> has no bndbox/xmin'),
        (xml('<object/>'), 'an <object> has no <name>'),
        (xml(thing('cat', (1, 'one', 2, 2))), "bndbox/ymin of <object> is 'one', not a number"),
        (xml(thing('cat', (1, 'nan', 2, 2))), "bndbox/ymin of <object> is 'nan', not a number"),
        (xml(thing('cat', (1, 'inf', 2, 2))), "bndbox/ymin of <object> is 'inf', not a number"),
    ],
)
def test_broken_xml_is_named_with_all_others(devkit, text, fault):
    for name in 'ab':
        (devkit / 'VOC2007/Annotations' / f'{name}.xml').write_text(text)
    (problem,) = problems(prepare_voc(devkit, subset=True))['annotations/voc07_trainval.json'][:1]
    assert problem.startswith('2 of 2 files cannot be converted: ')
    for name in 'ab':
        assert f'{devkit}/VOC2007/Annotations/{name}.xml is no annotation in VOC format: ' in problem
    with pytest.raises(PreparationError, match=fault):
        read_xml(devkit / 'VOC2007/Annotations/a.xml')


def test_unknown_class_is_named(devkit):
    (devkit / 'VOC2007/Annotations/b.xml').write_text(xml(thing('unicorn', (1, 1, 5, 5))))
    (problem,) = problems(prepare_voc(devkit, subset=True))['annotations/voc07_trainval.json']
    assert "1 names that are no classes: unicorn ('unicorn' in" in problem
    assert 'VOC2007/Annotations/b.xml' in problem
    report = prepare_voc(devkit, subset=True, classes=('unicorn', 'cat', 'dog'))
    assert report.complete
    content = json.loads((devkit / 'annotations/voc07_trainval.json').read_text())
    assert [annotation['category_id'] for annotation in content['annotations']] == [2, 3, 1]


def test_same_boxes_as_mmdets_own_data_set(tmp_path):
    """Decimal coordinates, no <difficult>: as XMLDataset reads them."""
    odd = xml(thing('cat', (1.9, 2.2, 11.7, 21.5), None), thing('dog', (0, 0, 3, 4)), thing('dog', (5, 6, 15, 26), 1))
    plant(tmp_path, dict(test=('a',)), _a=odd)
    compare_with_mmdet(tmp_path, 'ImageSets/Main/test.txt', ('cat', 'dog'))


def compare_with_mmdet(root: Path, split_file: str, classes: tuple) -> dict:
    content = voc_to_coco(root, split_file, classes)
    dataset = XMLDataset(
        data_root=str(root),
        ann_file=split_file,
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=[],
    )
    boxes: dict = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        label = annotation['category_id'] - 1
        boxes[annotation['image_id']].append(([x, y, x + width, y + height], label, annotation['iscrowd']))
    assert len(content['images']) == len(dataset)
    for index, image in enumerate(content['images']):
        info = dataset.get_data_info(index)
        assert Path(info['img_path']) == root / image['file_name']
        assert (info['height'], info['width']) == (image['height'], image['width'])
        instances = [(item['bbox'], item['bbox_label'], item['ignore_flag']) for item in info['instances']]
        assert boxes[image['id']] == instances
    return content


def test_bccd_has_the_boxes_of_mmdets_own_data_set(bccd):
    counts = []
    for split in ('train', 'val', 'test'):
        content = compare_with_mmdet(bccd, f'ImageSets/Main/{split}.txt', BLOOD_CELLS)
        flat = sum(not annotation['area'] for annotation in content['annotations'])
        counts.append((len(content['images']), len(content['annotations']), flat))
    # 364 images, 4888 boxes, two of zero size: counted from the files
    assert counts == [(205, 2805, 1), (87, 1138, 1), (72, 945, 0)]


def test_bccd_laid_out_as_voc(bccd, tmp_path):
    linked(bccd, tmp_path / 'VOC2007')
    report = prepare_voc(tmp_path, subset=True, classes=BLOOD_CELLS, deep=True, workers=1)
    assert report.complete
    assert [check.found for check in report.checks] == [
        *('292 names', '292 files', '292 files', '292 images'),
        *('72 names', '72 files', '72 files', '72 images'),
    ]
    note = rows(report)['annotations/voc07_trainval.json'].note
    assert note == '3943 boxes, 2 of zero size, which trainings leave out'
    assert not prepare_voc(tmp_path, classes=BLOOD_CELLS).complete


def test_bccd_as_it_is(bccd, tmp_path):
    """A set of another layout: no year, its own classes, its own counts."""
    report = prepare_voc(linked(bccd, tmp_path / 'bccd'))
    assert report.complete
    for split, images in (('train', 205), ('val', 87), ('trainval', 292), ('test', 72)):
        content = json.loads((tmp_path / f'bccd/annotations/{split}.json').read_text())
        assert len(content['images']) == images
        assert [category['name'] for category in content['categories']] == ['Platelets', 'RBC', 'WBC']
        assert content['images'][0]['file_name'].startswith('JPEGImages/BloodImage_')


def test_metrics_agree_on_what_was_written(bccd, tmp_path):
    """The same detections against the json file and against the xml files: the same AP, to all digits."""
    split = 'ImageSets/Main/test.txt'  # no box of zero size, which the two metrics treat differently
    content = voc_to_coco(bccd, split, BLOOD_CELLS)
    write_json(tmp_path / 'test.json', content)
    data = XMLDataset(
        data_root=str(bccd),
        ann_file=split,
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=BLOOD_CELLS),
        test_mode=True,
        pipeline=[],
    )
    rng = np.random.default_rng(0)
    perfect, noisy = [], []
    for index, image in enumerate(content['images']):
        instances = data.get_data_info(index)['instances']
        boxes = np.array([item['bbox'] for item in instances], dtype=float)
        labels = [item['bbox_label'] for item in instances]
        moved = boxes + rng.normal(scale=0.05, size=boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        for samples, detections in ((perfect, boxes), (noisy, moved)):
            predictions = found(detections, rng.random(len(detections)), labels)
            samples.append(sample(image['id'], predictions, instances=instances))
    ann_file = str(tmp_path / 'test.json')
    for samples in (perfect, noisy):
        coco = evaluate(LocalizationCocoMetric(ann_file), samples, BLOOD_CELLS)
        voc = evaluate(LocalizationVOCMetric(), samples, BLOOD_CELLS)
        stock = evaluate(CocoMetric(ann_file), samples, BLOOD_CELLS)
        assert {key.split('/')[1]: value for key, value in coco.items()} == {
            key.split('/')[1]: value for key, value in voc.items()
        }
        assert stock.items() <= coco.items()
        assert (coco['coco/bbox_mAP'] == 1) == (samples is perfect)
    assert 0.3 < coco['coco/bbox_mAP'] < 0.95


def test_a_box_with_the_id_zero_is_never_found(tmp_path):
    """Why the boxes are numbered from 1, and mmdet's Cityscapes annotations anew."""
    plant(tmp_path, dict(test=('a',)))
    content = voc_to_coco(tmp_path, 'ImageSets/Main/test.txt')
    for number, ap in ((1, 1), (0, 0)):
        content['annotations'][0]['id'] = number
        write_json(tmp_path / 'test.json', content)
        samples = [sample(1, found([(0, 0, 10, 20)], [0.9], [0]))]
        assert evaluate(CocoMetric(str(tmp_path / 'test.json')), samples, ('cat',))['coco/bbox_mAP'] == ap


def test_voc_to_coco_raises_on_a_wrong_list(devkit):
    root = devkit / 'VOC2007'
    (root / 'list.txt').write_text('a\na\n')
    with pytest.raises(PreparationError, match=r'list.txt: 1 names are there more than once: a'):
        voc_to_coco(root, 'list.txt')
    (root / 'list.txt').write_text('a\nnobody\n')
    with pytest.raises(PreparationError, match=r'1 of 2 files are missing: .*nobody.xml'):
        voc_to_coco(root, 'list.txt')
    with pytest.raises(PreparationError, match=r'elsewhere.txt: no such file'):
        voc_to_coco(root, root / 'elsewhere.txt')


def test_merging_numbers_anew():
    box = dict(bbox=[0, 0, 1, 1], category_id=1)
    part = dict(
        images=[dict(id=7), dict(id=3)], annotations=[dict(box, id=9, image_id=3)], categories=[dict(id=1, name='cat')]
    )
    together = merged([part, part])
    assert [image['id'] for image in together['images']] == [1, 2, 3, 4]
    assert [(annotation['id'], annotation['image_id']) for annotation in together['annotations']] == [(1, 2), (2, 4)]


# -------------------------------------------------------------------- kept, made again, interrupted


def test_second_run_keeps_and_force_makes_again(devkit, count):
    first = prepare_voc(devkit, subset=True)
    assert [check.status for check in first.checks if check.what.startswith('annotations')] == ['written'] * 4
    contents = {path: path.read_bytes() for path in (devkit / 'annotations').iterdir()}
    calls = count(voc_module, 'read_xml')
    again = prepare_voc(devkit, subset=True)
    assert [check.status for check in again.checks if check.what.startswith('annotations')] == ['kept'] * 4
    assert calls == []
    forced = prepare_voc(devkit, subset=True, force=True)
    assert [check.status for check in forced.checks if check.what.startswith('annotations')] == ['written'] * 4
    assert sorted(calls) == ['a.xml', 'b.xml', 'c.xml', 'd.xml']
    assert {path: path.read_bytes() for path in (devkit / 'annotations').iterdir()} == contents


def test_newer_annotation_is_converted_again(devkit):
    prepare_voc(devkit, subset=True)
    path = devkit / 'VOC2012/Annotations/d.xml'
    path.write_text(xml())
    later = (devkit / 'annotations/voc0712_trainval.json').stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    statuses = {what: check.status for what, check in rows(prepare_voc(devkit, subset=True)).items()}
    assert statuses['annotations/voc07_trainval.json'] == statuses['annotations/voc07_test.json'] == 'kept'
    assert statuses['annotations/voc12_trainval.json'] == statuses['annotations/voc0712_trainval.json'] == 'written'
    assert len(json.loads((devkit / 'annotations/voc0712_trainval.json').read_text())['annotations']) == 3


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('{"images": [', 'no json file, half copied?'),
        ('{"images": [], "annotations": [], "categories": []}', 'it holds 0 images, which are not the 1 of this split'),
    ],
)
def test_foreign_file_is_not_overwritten(devkit, text, fault, force):
    path = devkit / 'annotations/voc07_test.json'
    path.parent.mkdir()
    path.write_text(text)
    report = prepare_voc(devkit, subset=True, force=force)
    (problem,) = problems(report)['annotations/voc07_test.json']
    assert problem.startswith(f'is there and was not written by this tool, so it is not replaced; {fault}')
    assert path.read_text() == text
    assert set(problems(report)) == {'annotations/voc07_test.json'}  # the others are made


def test_good_file_of_another_tool_is_kept_but_for_an_id_of_zero(devkit):
    prepare_voc(devkit, subset=True)
    path = devkit / 'annotations/voc07_test.json'
    content = json.loads(path.read_text())
    del content['info']
    write_json(path, content)
    os.utime(path)
    assert rows(prepare_voc(devkit, subset=True))['annotations/voc07_test.json'].status == 'kept'
    content['annotations'][0]['id'] = 0
    write_json(path, content)
    (problem,) = problems(prepare_voc(devkit, subset=True))['annotations/voc07_test.json']
    assert 'one of its boxes has the id 0' in problem


def test_interrupted_conversion_goes_on(devkit, count, monkeypatch):
    plant(devkit / 'VOC2007', dict(trainval=tuple('efghij')))
    with monkeypatch.context():
        first = count(voc_module, 'read_xml', interrupt_at=4)
        with pytest.raises(KeyboardInterrupt):
            prepare_voc(devkit, subset=True)
    assert first == ['e.xml', 'f.xml', 'g.xml']
    assert not (devkit / 'annotations/voc07_trainval.json').exists()
    journal = devkit / 'annotations/.voc07_trainval.json.part'
    with journal.open('a') as stream:
        stream.write('["h.xml", [12')  # the process died while it wrote
    monkeypatch.undo()
    second = count(voc_module, 'read_xml')
    assert prepare_voc(devkit, subset=True).complete
    assert second == ['h.xml', 'i.xml', 'j.xml', 'c.xml', 'd.xml']
    assert not journal.exists()
    fresh = voc_to_coco(devkit / 'VOC2007', 'ImageSets/Main/trainval.txt', VOCDataset.METAINFO['classes'])
    written = json.loads((devkit / 'annotations/voc07_trainval.json').read_text())
    assert written['annotations'] == fresh['annotations']


def test_result_of_a_changed_file_is_not_taken_from_the_journal(tmp_path):
    journal, inputs = tmp_path / 'journal', [tmp_path / name for name in 'ab']
    for path in inputs:
        path.write_text('1')
    assert conversion.resumable(Path.read_text, inputs, journal) == ['1', '1']
    inputs[1].write_text('22')
    assert conversion.resumable(Path.read_text, inputs, journal) == ['1', '22']
    assert conversion.resumable(Path.read_text, inputs, None) == ['1', '22']


def test_folder_that_cannot_be_written_to(devkit):
    (devkit / 'annotations').write_text('in the way')
    found_problems = problems(prepare_voc(devkit, subset=True))
    assert 'annotations' in found_problems['annotations/voc07_test.json'][0]
    assert set(found_problems) == {
        f'annotations/{name}.json' for name in ('voc07_test', 'voc07_trainval', 'voc12_trainval', 'voc0712_trainval')
    }


def test_write_json_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / 'new' / 'a.json'
    write_json(path, dict(a=1))

    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(Path, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        write_json(path, dict(a=2))
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [('a.json', '{"a":1}\n')]


# ---------------------------------------------------------------------------------------- Cityscapes


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

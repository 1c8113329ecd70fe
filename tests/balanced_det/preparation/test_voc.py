"""VOC: what is found, what is written, the same boxes as mmdet's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from metric_samples import evaluate, found, sample
from mmdet.datasets import CocoDataset, VOCDataset, XMLDataset
from mmdet.evaluation.metrics import CocoMetric
from preparation_cases import linked, plant, rows, thing, xml

from balanced_det.datasets.preparation import prepare_voc, voc_to_coco, write_json
from balanced_det.datasets.preparation.voc_xml import merged
from balanced_det.evaluation import LocalizationCocoMetric, LocalizationVOCMetric

BLOOD_CELLS = ('RBC', 'WBC', 'Platelets')


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


def test_merging_numbers_anew():
    box = dict(bbox=[0, 0, 1, 1], category_id=1)
    part = dict(
        images=[dict(id=7), dict(id=3)], annotations=[dict(box, id=9, image_id=3)], categories=[dict(id=1, name='cat')]
    )
    together = merged([part, part])
    assert [image['id'] for image in together['images']] == [1, 2, 3, 4]
    assert [(annotation['id'], annotation['image_id']) for annotation in together['annotations']] == [(1, 2), (2, 4)]

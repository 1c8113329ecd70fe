"""COCO: what is checked, and how broken data is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from preparation_cases import cut, picture, problems, rows

from balanced_det.datasets.preparation import check_coco, write_json
from balanced_det.datasets.preparation import coco as coco_module


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


@pytest.mark.parametrize(
    ('table', 'field', 'value', 'problem'),
    [
        ('annotations', 'category_id', 'x', "1 of the annotations have no int as category_id: 'x'"),
        ('annotations', 'image_id', None, '1 of the annotations have no int as image_id: None'),
        ('images', 'id', 4.5, '1 of the images have no int as id: 4.5'),
        ('images', 'file_name', ['4.jpg'], "1 of the images have no str as file_name: ['4.jpg']"),
        ('categories', 'id', True, '1 of the categories have no int as id: True'),
        ('categories', 'name', 7, '1 of the categories have no str as name: 7'),
    ],
)
def test_entries_of_a_wrong_type(coco, table, field, value, problem):
    path = coco / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    content['annotations'][1]['category_id'] = 999
    content[table][0][field] = value
    write_json(path, content)
    report = check_coco(coco, subset=True)
    assert problems(report)[f'annotations/{path.name}'] == [f'no COCO annotation file: {problem}']
    assert [rows(report)[what].status for what in ('annotations/instances_train2017.json', 'train2017/')] == ['ok'] * 2

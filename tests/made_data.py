"""Data sets of noise and rectangles, a few images each, in the layouts of COCO, Pascal VOC and Cityscapes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import mmcv
import numpy as np
from mmdet.datasets import CityscapesDataset, CocoDataset, VOCDataset

HEIGHT, WIDTH = 96, 128


def random_objects(rng, classes, objects=2):
    """Labels and boxes (left, top, right, bottom in pixels) of rectangles that fill a good part of the image."""
    for _ in range(objects):
        width, height = rng.integers((WIDTH // 3, HEIGHT // 3), (WIDTH * 3 // 4, HEIGHT * 3 // 4)).tolist()
        left, top = rng.integers(1, (WIDTH - width, HEIGHT - height)).tolist()
        yield int(rng.integers(len(classes))), (left, top, left + width, top + height)


def write_image(path, rng, objects):
    image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for label, (left, top, right, bottom) in objects:
        image[top:bottom, left:right] = (label * 29 % 256, label * 83 % 256, 200)
    mmcv.imwrite(image, str(path))


def write_coco(ann_file, image_folder, classes=CocoDataset.METAINFO['classes'], *, names=None, images=2, labelled=True):
    """A COCO json and its images.

    Args:
        ann_file: Path of the json.
        image_folder: The images lie here.
        classes: Names of the categories.
        names: File names of the images below the folder; None makes some up.
        images: How many, where ``names`` is None.
        labelled: Whether there are objects, with masks; the json of a test set has none.
    """
    rng = np.random.default_rng(0)
    names = names or [f'{index:012d}.jpg' for index in range(1, images + 1)]
    listed, annotations = [], []
    for number, name in enumerate(names, start=1):
        objects = list(random_objects(rng, classes))
        write_image(image_folder / name, rng, objects)
        listed.append(dict(id=number, file_name=name, height=HEIGHT, width=WIDTH))
        for label, (left, top, right, bottom) in objects if labelled else ():
            width, height = right - left, bottom - top
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label + 1,
                    bbox=[left, top, width, height],
                    segmentation=[[left, top, right, top, right, bottom, left, bottom]],
                    area=width * height,
                    iscrowd=0,
                )
            )
    categories = [dict(id=label, name=name) for label, name in enumerate(classes, start=1)]
    content = dict(images=listed, categories=categories, **(dict(annotations=annotations) if labelled else {}))
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    ann_file.write_text(json.dumps(content))


def write_voc(folder, splits, images=4):
    """The VOC2007 and VOC2012 folders below ``folder``.

    Args:
        folder: The `VOCdevkit`.
        splits: Pairs of year and split, such as (2007, 'trainval').
        images: In each split.
    """
    classes = VOCDataset.METAINFO['classes']
    rng = np.random.default_rng(0)
    for year, split in splits:
        root = folder / f'VOC{year}'
        names = [f'{split}{index:04d}' for index in range(images)]
        (root / 'ImageSets' / 'Main').mkdir(parents=True, exist_ok=True)
        (root / 'Annotations').mkdir(exist_ok=True)
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(names) + '\n')
        for name in names:
            objects = list(random_objects(rng, classes))
            write_image(root / 'JPEGImages' / f'{name}.jpg', rng, objects)
            voc_annotation(objects, classes).write(root / 'Annotations' / f'{name}.xml')


def voc_annotation(objects, classes):
    tree = ET.Element('annotation')
    size = ET.SubElement(tree, 'size')
    for key, value in (('width', WIDTH), ('height', HEIGHT), ('depth', 3)):
        ET.SubElement(size, key).text = str(value)
    for label, box in objects:
        item = ET.SubElement(tree, 'object')
        ET.SubElement(item, 'name').text = classes[label]
        ET.SubElement(item, 'difficult').text = '0'
        corners = ET.SubElement(item, 'bndbox')
        for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box):
            ET.SubElement(corners, key).text = str(value)
    return ET.ElementTree(tree)


def write_cityscapes(root):
    """The jsons that mmdet's converter makes, and their images in a folder of each city."""
    for split, city in (('train', 'aachen'), ('val', 'munster')):
        write_coco(
            root / 'annotations' / f'instancesonly_filtered_gtFine_{split}.json',
            root / 'leftImg8bit' / split,
            CityscapesDataset.METAINFO['classes'],
            names=[f'{city}/{city}_{index:06d}_000019_leftImg8bit.png' for index in range(2)],
        )


def write_all(folder: Path) -> None:
    """All sets below ``folder``/data, where the configs look for them; two images to train on and two to test."""
    data = folder / 'data'
    for split in ('train2017', 'val2017'):
        write_coco(data / 'coco' / 'annotations' / f'instances_{split}.json', data / 'coco' / split)
    test_dev = data / 'coco' / 'annotations' / 'image_info_test-dev2017.json'
    write_coco(test_dev, data / 'coco' / 'test2017', labelled=False)
    write_voc(data / 'VOCdevkit', [(2007, 'trainval'), (2012, 'trainval')], images=1)
    write_voc(data / 'VOCdevkit', [(2007, 'test')], images=2)
    write_cityscapes(data / 'cityscapes')

"""VOC: broken data, wrong folders and wrong arguments are named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from preparation_cases import problems, rows, thing, xml

from balanced_det.datasets.preparation import PreparationError, prepare_voc, voc_to_coco
from balanced_det.datasets.preparation.voc_xml import read_xml


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


@pytest.mark.parametrize('here', [False, True])
def test_folder_of_one_year_is_not_the_root(devkit, here, monkeypatch):
    """Else its splits would pass for another set's, of any number of images."""
    monkeypatch.chdir(devkit / 'VOC2007')
    root, meant = (Path(), '..') if here else (devkit / 'VOC2007', str(devkit))
    with pytest.raises(PreparationError, match=rf'one year of VOC; did you mean --root {re.escape(meant)}\?'):
        prepare_voc(root)
    assert not (devkit / 'VOC2007/annotations').exists()


def test_annotation_files_of_a_year_that_is_gone(devkit):
    prepare_voc(devkit, subset=True)
    shutil.rmtree(devkit / 'VOC2012')
    fault = 'made from VOC2012, a year that is not there: put it back or move this file away'
    stale = ('annotations/voc12_trainval.json', 'annotations/voc0712_trainval.json')
    report = prepare_voc(devkit, subset=True)
    assert problems(report) == {name: [fault] for name in stale}
    assert rows(report)['annotations/voc07_trainval.json'].status == 'kept'
    for name in stale:
        (devkit / name).unlink()
    assert prepare_voc(devkit, subset=True).complete


def test_class_that_is_named_twice(devkit):
    classes = ('dog', 'dog', 'cat')
    with pytest.raises(PreparationError, match=r'^--classes names dog twice$'):
        prepare_voc(devkit, subset=True, classes=classes)
    assert not (devkit / 'annotations').exists()
    with pytest.raises(PreparationError, match=r'^--classes names dog twice$'):
        voc_to_coco(devkit / 'VOC2007', 'ImageSets/Main/trainval.txt', classes)

"""Annotation files made from others: kept, made again, never those of somebody else, interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from mmdet.datasets import VOCDataset
from preparation_cases import plant, problems, rows, thing, xml

from balanced_det.datasets.preparation import conversion, prepare_voc, voc_to_coco, write_json
from balanced_det.datasets.preparation import voc as voc_module


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


def category_names(path: Path) -> list[str]:
    return [category['name'] for category in json.loads(path.read_text())['categories']]


@pytest.mark.parametrize('force', [False, True])
def test_order_of_the_classes_stays_without_classes(tmp_path, force):
    """Ids that a training has seen keep their meaning."""
    both = xml(thing('cat', (1, 1, 11, 21)), thing('dog', (5, 6, 15, 26)))
    plant(tmp_path, dict(trainval=('a',), test=('b',)), _a=both)
    prepare_voc(tmp_path, classes=('dog', 'cat'))
    (tmp_path / 'annotations/trainval.json').unlink()  # one file is enough to know the order
    report = prepare_voc(tmp_path, force=force)
    assert rows(report)['annotations/test.json'].status == ('written' if force else 'kept')
    for split, ids in (('trainval', [2, 1]), ('test', [2])):
        path = tmp_path / f'annotations/{split}.json'
        assert category_names(path) == ['dog', 'cat']
        assert [annotation['category_id'] for annotation in json.loads(path.read_text())['annotations']] == ids
    prepare_voc(tmp_path, classes=('cat', 'dog'))
    assert category_names(tmp_path / 'annotations/test.json') == ['cat', 'dog']


def test_order_of_vocs_own_classes_stays(devkit):
    backwards = VOCDataset.METAINFO['classes'][::-1]
    prepare_voc(devkit, subset=True, classes=backwards)
    report = prepare_voc(devkit, subset=True)
    assert [check.status for check in report.checks if check.what.startswith('annotations')] == ['kept'] * 4
    assert category_names(devkit / 'annotations/voc0712_trainval.json') == [*backwards]


def test_other_classes_and_files_of_others_give_no_order(tmp_path):
    plant(tmp_path, dict(test=('a', 'b')), _a=xml(thing('dog', (1, 1, 11, 21))))
    path = tmp_path / 'annotations/test.json'
    prepare_voc(tmp_path, classes=('dog', 'cat', 'unicorn'))
    prepare_voc(tmp_path)
    assert category_names(path) == ['cat', 'dog']
    path.unlink()
    write_json(path, voc_to_coco(tmp_path, 'ImageSets/Main/test.txt', ('dog', 'cat')))
    (problem,) = problems(prepare_voc(tmp_path))['annotations/test.json']
    assert 'it has the categories dog, cat, not cat, dog' in problem


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

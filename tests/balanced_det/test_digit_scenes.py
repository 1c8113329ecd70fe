"""The digit scenes: same bytes from the same seed, exact boxes, a set that mends itself and protects others."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from pycocotools.coco import COCO

from balanced_det.datasets import digit_drawing, digit_scenes, parallel
from balanced_det.datasets.digit_scenes import MANIFEST, TEN_CLASSES, make_digit_scenes, scene

SMALL = dict(num_train=24, num_val=8, progress=False)


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    return make_digit_scenes(tmp_path_factory.mktemp('scenes') / 'one', workers=1, **SMALL)


@pytest.fixture(scope='module')
def many() -> list[digit_drawing.Scene]:
    return [scene('train', index) for index in range(200)]


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def annotations(root: Path, split: str = 'train') -> dict:
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def extent(mask: np.ndarray) -> list[int]:
    """Tight xywh of a mask, by a plain loop."""
    pixels = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    left, top = min(x for x, _ in pixels), min(y for _, y in pixels)
    return [left, top, max(x for x, _ in pixels) - left + 1, max(y for _, y in pixels) - top + 1]


# What a scene is


def test_every_box_is_the_tight_extent_of_the_drawn_digit(many):
    rng = np.random.default_rng(0)
    for drawn in many[:40]:
        for digit in drawn.digits:
            canvas = np.full((128, 128, 3), 255, np.uint8)
            digit_drawing.paint(rng, canvas, digit)
            assert extent((canvas != 255).any(2)) == digit.bbox
            assert digit.alpha[digit.alpha > 0].min() > digit_drawing.ALPHA_MIN


def test_box_is_what_changed_on_the_photograph(made):
    """On the PNG itself, against the photograph's crop that the same generator cuts first."""
    photos, exact = digit_drawing.load_sources().photos, 0
    per_image = {index: [] for index in range(24)}
    for annotation in annotations(made)['annotations']:
        per_image[annotation['image_id']].append(annotation['bbox'])
    for index, boxes in per_image.items():
        plain = digit_drawing.draw_background(np.random.default_rng([0, 0, index]), photos, 128)
        changed = (cv2.imread(str(made / 'train' / f'{index:06d}.png')) != plain).any(2)
        if len(boxes) == 1:
            assert extent(changed) == boxes[0]
            exact += 1
        for left, top, width, height in boxes:
            changed[top : top + height, left : left + width] = False
        assert not changed.any()
    assert exact >= 2  # else this test would test nothing


def test_boxes_keep_the_stated_limits(many):
    for drawn in many:
        assert drawn.image.shape == (128, 128, 3)
        for left, top, width, height in (digit.bbox for digit in drawn.digits):
            assert left >= 0
            assert top >= 0
            assert left + width <= 128
            assert top + height <= 128
            assert 14 <= max(width, height) <= 80
            assert 0.3 <= width / height <= 3


def test_limits_are_reached_and_boxes_are_as_many_as_stated(many):
    boxes = np.array([digit.bbox for drawn in many for digit in drawn.digits])
    counts = [len(drawn.digits) for drawn in many]
    assert abs(np.mean(counts) - 3.4) < 0.4
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    aspect, side = boxes[:, 2] / boxes[:, 3], boxes[:, 2:].max(1)
    assert aspect.min() < 0.35
    assert aspect.max() > 2.5
    assert side.min() < 16
    assert side.max() > 75


def test_digits_overlap_but_none_is_hidden(many):
    visible = np.array([share for drawn in many for share in drawn.visible])
    assert visible.min() >= 0.4
    assert 0.05 < (visible < 1).mean() < 0.4


def test_visible_share_counts_later_digits_only():
    block = digit_drawing.Digit(source=0, label=0, alpha=np.ones((10, 10)), left=0, top=0)
    shares = digit_drawing.visible_shares([block, block._replace(left=5)], 32)
    assert shares == [0.5, 1.0]


def test_no_handwritten_digit_is_in_both_splits(made):
    train, val = digit_drawing.digit_range('train'), digit_drawing.digit_range('val')
    total = len(digit_drawing.load_sources().labels)
    assert list(train) + list(val) == list(range(total))
    assert len(train) == int(0.7 * total)
    for split, samples in (('train', train), ('val', val)):
        labels = annotations(made, split)['annotations']
        assert all(label['source'] in samples for label in labels)
        assert all(digit_drawing.load_sources().labels[label['source']] == label['digit'] for label in labels)


@pytest.mark.parametrize('size', [32, 96, 200])
def test_other_sizes_keep_digits_inside(size):
    for index in range(20):
        drawn = scene('val', index, size=size)
        assert drawn.image.shape == (size, size, 3)
        for left, top, width, height in (digit.bbox for digit in drawn.digits):
            assert 14 <= max(width, height) <= size * 5 // 8
            assert left + width <= size
            assert top + height <= size


# The same bytes


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(made, tmp_path):
    again = make_digit_scenes(tmp_path / 'again', workers=2, **SMALL)
    assert content(again) == content(made)
    assert len(content(made)) == 24 + 8 + 2 + 1


def test_another_seed_gives_another_set(made, tmp_path):
    other = make_digit_scenes(tmp_path / 'other', seed=1, workers=1, **SMALL)
    assert not {png for name, png in content(other).items() if name.endswith('png')} & set(content(made).values())
    assert annotations(other)['annotations'] != annotations(made)['annotations']


def test_images_do_not_depend_on_how_many_there_are(made, tmp_path):
    fewer = make_digit_scenes(tmp_path / 'fewer', num_train=3, num_val=1, workers=1, progress=False)
    whole = content(made)
    assert all(png == whole[name] for name, png in content(fewer).items() if name.endswith('png'))


# COCO


def test_coco_reads_it(made):
    coco = COCO(str(made / 'annotations' / 'val.json'))
    assert len(coco.getImgIds()) == 8
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == ['digit']
    for label in coco.loadAnns(coco.getAnnIds()):
        assert label['area'] == label['bbox'][2] * label['bbox'][3]
        assert label['iscrowd'] == 0
    info = coco.dataset['info']
    assert 'MADE' in info['description']
    assert info['settings']['seed'] == 0
    licenses = {entry['id'] for entry in coco.dataset['licenses']}
    assert all(image['license'] in licenses for image in coco.dataset['images'])


def test_ten_classes_differ_in_the_category_only(made, tmp_path):
    ten = make_digit_scenes(tmp_path / 'ten', classes=10, workers=1, **SMALL)
    one_files, ten_files = content(made), content(ten)
    assert all(ten_files[name] == png for name, png in one_files.items() if name.endswith('png'))
    assert [category['name'] for category in annotations(ten)['categories']] == list(TEN_CLASSES)
    one_labels, ten_labels = annotations(made)['annotations'], annotations(ten)['annotations']
    assert len(one_labels) == len(ten_labels)
    for one_label, ten_label in zip(one_labels, ten_labels):
        assert ten_label.pop('category_id') == one_label['digit'] + 1
        assert one_label.pop('category_id') == 1
        assert one_label == ten_label


def load_dataset(repo_root: Path, root: Path, **overrides):
    config = Config.fromfile(repo_root / 'configs' / '_base_' / 'datasets' / 'digit_scenes.py')
    return DATASETS.build({'_scope_': 'mmdet', **config.val_dataloader.dataset, 'data_root': str(root), **overrides})


def test_the_config_loads_it(made, repo_root):
    dataset = load_dataset(repo_root, made)
    assert len(dataset) == 8
    assert dataset.metainfo['classes'] == ('digit',)
    truth = annotations(made, 'val')['annotations']
    for sample in dataset:
        meta, boxes = sample['data_samples'], sample['data_samples'].gt_instances.bboxes
        expected = [
            [x, y, x + w, y + h]
            for x, y, w, h in (label['bbox'] for label in truth if label['image_id'] == meta.img_id)
        ]
        assert boxes.tensor.tolist() == expected
        assert meta.scale_factor == (1.0, 1.0)
        assert sample['inputs'].shape == (3, 128, 128)


def test_ten_classes_load_with_the_ten_names(tmp_path, repo_root):
    root = make_digit_scenes(tmp_path / 'ten', classes=10, workers=1, **SMALL)
    dataset = load_dataset(repo_root, root, metainfo=dict(classes=TEN_CLASSES))
    labels = [label for sample in dataset for label in sample['data_samples'].gt_instances.labels.tolist()]
    assert labels == [label['digit'] for label in annotations(root, 'val')['annotations']]
    assert len(dataset.metainfo['palette']) == 10
    with pytest.raises(ValueError, match=r"metainfo.classes \('digit',\) does not match .*--classes 10"):
        load_dataset(repo_root, root)


def test_ten_names_on_a_set_of_one_class_are_an_error(made, repo_root):
    with pytest.raises(ValueError, match='does not match'):
        load_dataset(repo_root, made, metainfo=dict(classes=TEN_CLASSES))


@pytest.mark.parametrize(('classes', 'option'), [(('digit',), ''), (TEN_CLASSES, ' --classes 10')])
def test_missing_annotation_file_names_the_command(tmp_path, repo_root, classes, option):
    root = tmp_path / 'nowhere'
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(repo_root, root, metainfo=dict(classes=classes))
    assert f'`python tools/make_digit_scenes.py --root {root}{option}`' in str(caught.value)
    assert 'val.json' in str(caught.value)


# What is there already


def stamps(root: Path) -> dict[str, int]:
    return {name: (root / name).stat().st_mtime_ns for name in content(root)}


def test_a_complete_set_is_left_as_it_is(tmp_path):
    root = make_digit_scenes(tmp_path, workers=1, **SMALL)
    before = stamps(root)
    assert make_digit_scenes(str(tmp_path), workers=1, **SMALL) == root
    assert stamps(root) == before


@pytest.mark.parametrize('workers', [1, 2])
def test_an_interrupted_set_is_completed(made, tmp_path, monkeypatch, workers):
    root, real = tmp_path / 'cut', digit_scenes._make_image

    def interrupted(task: tuple) -> list[dict]:
        if task[1:3] == ('train', 20):
            raise KeyboardInterrupt
        return real(task)

    if workers == 1:
        monkeypatch.setattr(digit_scenes, '_make_image', interrupted)
    else:  # the parent is interrupted while its workers draw
        monkeypatch.setattr(parallel, 'tqdm', lambda results, *args, **kwargs: interrupt_after(results, 3))
    with pytest.raises(KeyboardInterrupt):
        make_digit_scenes(root, workers=workers, **SMALL)
    assert not json.loads((root / MANIFEST).read_text())['complete']
    assert not list((root / 'annotations').iterdir())
    monkeypatch.undo()
    make_digit_scenes(root, workers=workers, **SMALL)
    assert content(root) == content(made)


def interrupt_after(results, number: int):
    for _ in range(number):
        yield next(results)
    raise KeyboardInterrupt


def test_an_interruption_before_the_first_image_is_no_foreign_folder(made, tmp_path, monkeypatch):
    def interrupted(path: Path, content: dict) -> None:
        (path.parent / f'.{path.name}.123').write_text('{')
        raise KeyboardInterrupt

    monkeypatch.setattr(digit_scenes, 'write_json', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_digit_scenes(tmp_path, workers=1, **SMALL)
    monkeypatch.undo()
    make_digit_scenes(tmp_path, workers=1, **SMALL)
    assert content(made).items() <= content(tmp_path).items()


@pytest.mark.parametrize('lost', ['train/000003.png', 'annotations/val.json'])
def test_a_lost_file_is_made_again(made, tmp_path, lost):
    make_digit_scenes(tmp_path, workers=1, **SMALL)
    (tmp_path / lost).unlink()
    make_digit_scenes(tmp_path, workers=1, **SMALL)
    assert content(tmp_path) == content(made)


def test_other_settings_are_an_error_until_forced(tmp_path, made):
    make_digit_scenes(tmp_path, num_train=30, num_val=8, seed=3, workers=1, progress=False)
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match=r'num_train is 30, asked for 24; seed is 3, asked for 0.*--force'):
        make_digit_scenes(tmp_path, workers=1, **SMALL)
    assert content(tmp_path) == before
    make_digit_scenes(tmp_path, workers=1, force=True, **SMALL)
    assert content(tmp_path) == content(made)


def test_files_of_something_else_are_never_touched(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / '000000.png').write_bytes(b'mine')
    for force in (False, True):
        with pytest.raises(FileExistsError, match=r'not a folder of digit scenes.*another root'):
            make_digit_scenes(tmp_path, workers=1, force=force, **SMALL)
    assert content(tmp_path) == {'train/000000.png': b'mine'}


def test_force_keeps_what_others_put_into_the_folder(tmp_path):
    make_digit_scenes(tmp_path, workers=1, **SMALL)
    (tmp_path / 'train' / 'notes.txt').write_text('mine')
    make_digit_scenes(tmp_path, workers=1, force=True, seed=1, **SMALL)
    assert (tmp_path / 'train' / 'notes.txt').read_text() == 'mine'


def test_an_unreadable_manifest_is_an_error_until_forced(tmp_path, made):
    (tmp_path / MANIFEST).write_text('{"settings"')
    with pytest.raises(FileExistsError, match='not readable'):
        make_digit_scenes(tmp_path, workers=1, **SMALL)
    make_digit_scenes(tmp_path, workers=1, force=True, **SMALL)
    assert content(tmp_path) == content(made)


# Bad input


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        (dict(num_train=-1), r'num_train must be at least 1, but got -1'),
        (dict(num_val=0), r'num_val must be at least 1, but got 0'),
        (dict(size=16), r'size must be at least 32 pixels, but got 16'),
        (dict(classes=3), r"classes must be 1 \('digit'\) or 10 .* got 3"),
        (dict(classes='ten'), r"classes must be an int, but got 'ten'"),
        (dict(seed=-5), r'seed must not be negative, but got -5'),
        (dict(size=128.0), r'size must be an int, but got 128.0'),
        (dict(workers=0), r'workers must be at least 1, but got 0'),
    ],
)
def test_bad_input_is_named_before_anything_is_written(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        make_digit_scenes(tmp_path / 'bad', **bad)
    assert not (tmp_path / 'bad').exists()


def test_missing_scikit_learn_names_the_remedy(tmp_path, monkeypatch):
    digit_drawing.load_sources.cache_clear()
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(ImportError, match='pip install scikit-learn'):
        make_digit_scenes(tmp_path / 'none', workers=1, **SMALL)
    assert not (tmp_path / 'none').exists()


def run_tool(repo_root: Path, monkeypatch, *args: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['make_digit_scenes.py', *args])
    runpy.run_path(str(repo_root / 'tools' / 'make_digit_scenes.py'), run_name='__main__')


def test_the_tool_makes_the_set_and_says_so(tmp_path, repo_root, monkeypatch, capsys):
    small = ('--root', str(tmp_path), '--num-train', '4', '--num-val', '2', '--workers', '1')
    run_tool(repo_root, monkeypatch, *small)
    assert f'are in {tmp_path}: 4 training and 2 validation images' in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r'error: .*seed is 0, asked for 1'):
        run_tool(repo_root, monkeypatch, *small, '--seed', '1')


def test_the_tool_answers_help(repo_root, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run_tool(repo_root, monkeypatch, '-h')
    assert caught.value.code == 0
    assert '--classes' in capsys.readouterr().out

"""faster_coco_eval against pycocotools, on made data that has what the two could treat differently."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from metric_samples import BOX, evaluate, found, sample
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import METRICS
from mmengine import dump
from pycocotools import mask as coco_mask

from balanced_det.benchmark.evaluation import evaluation
from balanced_det.evaluation import LocalizationCocoMetric, LocalizationVOCMetric
from balanced_det.evaluation.backends import BACKENDS, evaluators

WIDTH, HEIGHT = 160, 120
CLASSES = ('a', 'b', 'c', 'd', 'never annotated', 'never at all')


@pytest.fixture(scope='module')
def installed():
    pytest.importorskip('faster_coco_eval')


@pytest.fixture(scope='module', params=['numbers', 'names'])
def made(request, installed) -> tuple[dict, list[dict]]:
    """Ground truth and detections, in COCO's format.

    Scores of one digit, so most are equal; boxes on a grid, so IoUs lie on thresholds; crowds, as polygons and as
    run lengths; an annotation with the id 0, which pycocotools never finds; `ignore`, which it overrules; images
    without boxes, without detections, without either, and in no order; a class without ground truth and one without
    anything.
    """
    rng = np.random.default_rng(3)
    names = [number if request.param == 'numbers' else f'image_{number}' for number in rng.permutation(30).tolist()]
    annotations, detections = [], []
    for name in names[3:]:
        for _ in range(rng.integers(0, 9)):
            annotations.append(annotation(rng, image_id=name, id=len(annotations)))
            detections += [detection(rng, annotations[-1]) for _ in range(rng.integers(0, 4))]
    detections.append(dict(detections[0], image_id=names[0]))
    content = {
        'images': [dict(id=name, width=WIDTH, height=HEIGHT) for name in names],
        'categories': [dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)],
        'annotations': annotations,
    }
    return content, detections


def annotation(rng: np.random.Generator, **fields) -> dict:
    w, h = rng.choice([8.0, 10.0, 20.0, 40.0, 80.0, 100.0], 2).tolist()
    x, y = float(rng.integers(0, WIDTH - w + 1)), float(rng.integers(0, HEIGHT - h + 1))
    crowd = int(rng.random() < 0.2)
    shape = [[x, y, x + w, y, x + w / 2, y + h, x, y + h]]
    return dict(
        fields,
        category_id=int(rng.integers(1, 5)),
        bbox=[x, y, w, h],
        area=w * h,
        segmentation=encoded(shape) if crowd and rng.random() < 0.5 else shape,
        iscrowd=crowd,
        ignore=1 - crowd,
    )


def detection(rng: np.random.Generator, truth: dict) -> dict:
    x, y, w, h = truth['bbox']
    missing = float(rng.choice([0, 0, 0.1, 0.2, 0.3, 0.5]))
    box = [x + missing * w, y, w * (1 - missing), h]
    return dict(
        image_id=truth['image_id'],
        category_id=truth['category_id'] if rng.random() < 0.85 else int(rng.integers(1, 6)),
        bbox=box,
        score=round(float(rng.random()), 1),
        segmentation=encoded([corners(box)]),
    )


def corners(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def encoded(polygons: list) -> dict:
    mask = coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))
    return {**mask, 'counts': mask['counts'].decode()}


def evaluated(made, backend: str, kind: str, name: str = 'COCOeval', plain_iou: bool = False, **params):
    """One evaluation, set up as mmdet's `CocoMetric` does it."""
    truths = COCO()
    truths.dataset, rows = copy.deepcopy(made)
    truths.createIndex()
    if kind == 'segm':
        rows = [{key: value for key, value in row.items() if key != 'bbox'} for row in rows]
    run = evaluators(backend, plain_iou=plain_iou)[name](truths, truths.loadRes(rows), kind)
    for key, value in {'imgIds': truths.getImgIds(), 'catIds': truths.getCatIds(), **params}.items():
        setattr(run.params, key, value)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('plain_iou', [False, True])
@pytest.mark.parametrize(
    'params',
    [
        dict(maxDets=[100, 300, 1000]),
        dict(maxDets=[3, 1, 100]),  # fewer than an image has
        dict(maxDets=[1, 4, 100], useCats=0, catIds=[3, 1, 2, 6, 5]),  # proposals, in the order of a config's classes
    ],
    ids=['stock', 'few', 'proposals'],
)
def test_same_numbers(made, kind, plain_iou, params):
    runs = [evaluated(made, backend, kind, plain_iou=plain_iou, **params) for backend in BACKENDS]
    for key in ('precision', 'recall', 'scores'):
        slow, fast = (run.eval[key] for run in runs)
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    np.testing.assert_allclose(runs[1].stats, runs[0].stats, rtol=0, atol=1e-12)
    assert 0.1 < runs[0].stats[0] < 0.5  # neither trivial


def test_the_difficult_are_no_crowd(made):
    """Ordinary IoU changes the numbers, so that the agreement above says something."""
    crowd, difficult = (evaluated(made, 'faster_coco_eval', 'bbox', plain_iou=plain) for plain in (False, True))
    assert crowd.stats[0] > difficult.stats[0] + 0.001


# ------------------------------------------------------------------------------------- whole metrics


def samples_of(made) -> list[dict]:
    """What a detector with boxes and masks hands to the metric."""
    content, rows = made
    samples = []
    for image in content['images']:
        mine = [row for row in rows if row['image_id'] == image['id']]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (row['bbox'] for row in mine)]
        predictions = found(boxes, [row['score'] for row in mine], [row['category_id'] - 1 for row in mine])
        masks = [torch.from_numpy(coco_mask.decode(row['segmentation'])) for row in mine]
        predictions['masks'] = torch.stack(masks).bool() if masks else torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool)
        samples.append(sample(image['id'], predictions))
    return samples


@pytest.mark.parametrize('use_mp_eval', [False, True])
def test_same_report(made, tmp_path, use_mp_eval):
    """All keys of all kinds, twice: the second time as after the next epoch."""
    dump(made[0], tmp_path / 'truth.json')
    options = dict(metric=['bbox', 'segm', 'proposal'], classwise=True, use_mp_eval=use_mp_eval)
    slow, fast = (LocalizationCocoMetric(str(tmp_path / 'truth.json'), backend=b, **options) for b in BACKENDS)
    report = evaluate(slow, samples_of(made), CLASSES)
    for _ in range(2):
        np.testing.assert_equal(evaluate(fast, samples_of(made), CLASSES), report)  # NaN: without ground truth
    assert {'coco/bbox_mAP_90', 'coco/segm_mAP_90', 'coco/a_precision'} <= set(report)


@pytest.mark.parametrize(('use_mp_eval', 'expected'), [(False, [0, 0.01, 0.01]), (True, [0.01, 0.01, 0.01])])
def test_more_than_100_detections(backend, use_mp_eval, expected):
    """The one object is found the 101st: mAP counts the best 100, without `use_mp_eval`, the others the best 1000."""
    boxes = [*[(200, 200, 300, 300)] * 100, BOX]
    instances = [dict(bbox=BOX, bbox_label=0)]
    samples = [sample(1, found(boxes, np.linspace(0.9, 0.1, 101)), instances=instances)]
    report = evaluate(LocalizationCocoMetric(backend=backend, use_mp_eval=use_mp_eval), samples)
    assert [report[f'coco/bbox_{item}'] for item in ('mAP', 'mAP_50', 'mAP_60')] == expected


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize('name', ['LocalizationCocoMetric', 'LocalizationVOCMetric'])
def test_unknown_backend(name):
    with pytest.raises(
        ValueError, match=r"backend='numpy' of val_evaluator .* there are 'pycocotools' and 'faster_coco_eval'"
    ):
        METRICS.build(dict(type=name, backend='numpy'))


@pytest.mark.parametrize('metric', [LocalizationCocoMetric, LocalizationVOCMetric])
def test_backend_that_is_not_installed(metric, monkeypatch):
    monkeypatch.delitem(sys.modules, 'balanced_det.evaluation.fast', raising=False)
    monkeypatch.delattr('balanced_det.evaluation.fast', raising=False)
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    metric()
    with pytest.raises(
        ImportError, match=r"backend='faster_coco_eval' of val_evaluator .*pip install 'faster-coco-eval"
    ):
        metric(backend='faster_coco_eval')


# ----------------------------------------------------------------------------------------- benchmark


@pytest.mark.usefixtures('installed')
def test_benchmark():
    """The backends' numbers agree on what it times, and they are not trivial."""
    rows = evaluation(num_images=4, rounds=2)
    assert [row['case'] for row in rows] == [*BACKENDS, 'reading the files']
    assert all(len(row['seconds']) == 2 and min(row['seconds']) > 0 for row in rows)
    assert rows[1]['difference'] < 1e-12

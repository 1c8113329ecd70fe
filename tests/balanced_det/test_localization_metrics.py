"""LocalizationCocoMetric against pycocotools, a published evaluation, and sums done by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_samples import BOX, EXTRA_ITEMS, FAR, MMDET_ITEMS, coco_file, evaluate, found, logged, sample
from mmdet.evaluation.metrics import CocoMetric, coco_metric
from mmdet.registry import METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from balanced_det.evaluation import LocalizationCocoMetric, precision_at
from balanced_det.evaluation.backends import evaluators
from balanced_det.evaluation.localization_voc import IOU_THRS


@pytest.fixture
def one_box(tmp_path) -> str:
    return coco_file(tmp_path, {1: [(0, BOX)]})


# ------------------------------------------------------------------------- a published evaluation


@pytest.fixture(scope='module')
def published(shared_data):
    """100 images of val2014, a published results file, and the data samples that a detector would give."""
    folder = shared_data / 'cocoapi'
    ann_file = folder / 'instances_val2014_100.json'
    results_file = folder / 'instances_val2014_fakebbox100_results.json'
    content = json.loads(ann_file.read_text())
    label = {category['id']: k for k, category in enumerate(content['categories'])}
    rows = defaultdict(list)
    for row in json.loads(results_file.read_text()):
        x, y, w, h = row['bbox']
        rows[row['image_id']].append(((x, y, x + w, y + h), row['score'], label[row['category_id']]))
    samples = [
        sample(image['id'], found(*zip(*rows[image['id']])) if rows[image['id']] else found())
        for image in content['images']
    ]
    classes = [category['name'] for category in content['categories']]
    return str(ann_file), str(results_file), samples, classes


@pytest.fixture(scope='module')
def pycoco(published) -> COCOeval:
    """The same evaluation by pycocotools alone, from the results file."""
    truths = COCO(published[0])
    run = COCOeval(truths, truths.loadRes(published[1]), 'bbox')
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


def test_published_numbers(published, backend):
    """val2014_fake_eval_res.txt of cocoapi: AP 0.505 / 0.697 / 0.573, S/M/L 0.586 / 0.519 / 0.501."""
    ann_file, _, samples, classes = published
    report = evaluate(LocalizationCocoMetric(ann_file, backend=backend), samples, classes)
    assert [report[f'coco/bbox_{item}'] for item in MMDET_ITEMS] == [0.505, 0.697, 0.573, 0.586, 0.519, 0.501]


def test_extra_thresholds_are_pycocotools_precision(published, pycoco):
    ann_file, _, samples, classes = published
    report = evaluate(LocalizationCocoMetric(ann_file), samples, classes)
    assert set(report) == {f'coco/bbox_{item}' for item in MMDET_ITEMS + EXTRA_ITEMS}
    # positions in pycocotools' ten thresholds 0.5, 0.55, ..., 0.95
    for position, percent in [(0, 50), (2, 60), (4, 70), (5, 75), (6, 80), (7, 85), (8, 90)]:
        values = pycoco.eval['precision'][position, :, :, 0, 2]
        expected = np.mean(values[values > -1])
        assert precision_at(pycoco, percent / 100) == pytest.approx(expected, abs=1e-12)
        assert report[f'coco/bbox_mAP_{percent}'] == round(expected, 3)
    means = [precision_at(pycoco, thr) for thr in IOU_THRS]
    assert np.mean(means) == pytest.approx(pycoco.stats[0], abs=1e-12)
    assert precision_at(pycoco, 0.5) == pytest.approx(pycoco.stats[1], abs=1e-12)


def test_faster_coco_eval_gives_the_same_unrounded(published, pycoco):
    """Every precision, recall and mean of the published results."""
    pytest.importorskip('faster_coco_eval')
    run = evaluators('faster_coco_eval')['COCOeval'](pycoco.cocoGt, pycoco.cocoDt, 'bbox')
    run.evaluate()
    run.accumulate()
    run.summarize()
    for key in ('precision', 'recall', 'scores'):
        np.testing.assert_allclose(run.eval[key], pycoco.eval[key], rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.stats, pycoco.stats, rtol=0, atol=1e-12)


def test_mmdets_own_numbers_are_untouched(published):
    ann_file, _, samples, classes = published
    stock = evaluate(CocoMetric(ann_file, classwise=True), samples, classes)
    ours = evaluate(LocalizationCocoMetric(ann_file, classwise=True), samples, classes)
    extra = {f'coco/bbox_{item}' for item in EXTRA_ITEMS}
    assert set(ours) - set(stock) == extra
    np.testing.assert_equal({key: ours[key] for key in stock}, stock)  # NaN: classes without ground truth


def test_multiprocess_evaluation_agrees(published):
    ann_file, _, samples, classes = published
    once = evaluate(LocalizationCocoMetric(ann_file), samples, classes)
    assert evaluate(LocalizationCocoMetric(ann_file, use_mp_eval=True), samples, classes) == once


def test_image_without_detections_counts(published, tmp_path):
    ann_file, _, samples, classes = published
    (empty,) = (s['img_id'] for s in samples if len(s['pred_instances']['scores']) == 0)
    content = json.loads(Path(ann_file).read_text())
    content['images'] = [image for image in content['images'] if image['id'] != empty]
    content['annotations'] = [ann for ann in content['annotations'] if ann['image_id'] != empty]
    without = tmp_path / 'without.json'
    without.write_text(json.dumps(content))
    metric = LocalizationCocoMetric(ann_file)
    report = evaluate(metric, samples, classes)
    others = [s for s in samples if s['img_id'] != empty]
    easier = evaluate(LocalizationCocoMetric(str(without)), others, classes)
    assert len(metric.img_ids) == 100
    # its one object, a giraffe, is missed at every threshold
    for item in ('mAP', 'mAP_50', 'mAP_80'):
        assert report[f'coco/bbox_{item}'] < easier[f'coco/bbox_{item}']


# ------------------------------------------------------------------------------- sums done by hand


def test_one_box_of_iou_072(one_box):
    """IoU 0.72 is enough at 0.5, 0.55, 0.6, 0.65, 0.7: five thresholds of ten."""
    report = evaluate(LocalizationCocoMetric(one_box), [sample(1, found([(0, 0, 72, 100)], [0.9]))])
    expected = dict(mAP=0.5, mAP_50=1, mAP_60=1, mAP_70=1, mAP_75=0, mAP_80=0, mAP_85=0, mAP_90=0)
    assert {item: report[f'coco/bbox_{item}'] for item in expected} == expected
    # 100 x 100 is more than 96 x 96, so a large object; there is no other: -1 says so
    assert [report[f'coco/bbox_mAP_{size}'] for size in 'sml'] == [-1, -1, 0.5]


@pytest.mark.parametrize(
    ('scores', 'expected'),
    [
        # false, true, true: precision 0, 1/2, 2/3; made monotone, 2/3 at every recall
        ((0.8, 0.7, 0.9), 2 / 3),
        # true, false, true: 1 for the 51 recalls up to 0.5, then 2/3 (the exact area would be 5/6 = 0.833)
        ((0.9, 0.7, 0.8), (51 + 50 * 2 / 3) / 101),
        # true, true, false: what comes after full recall costs nothing
        ((0.9, 0.8, 0.7), 1.0),
    ],
)
def test_false_positive_by_rank(tmp_path, scores, expected):
    """Two objects, both found exactly, and one false positive."""
    ann_file = coco_file(tmp_path, {1: [(0, BOX), (0, (200, 0, 300, 100))]})
    boxes = [BOX, (200, 0, 300, 100), FAR]
    report = evaluate(LocalizationCocoMetric(ann_file), [sample(1, found(boxes, scores))])
    for item in ('mAP', 'mAP_50', 'mAP_75', *EXTRA_ITEMS):
        assert report[f'coco/bbox_{item}'] == round(expected, 3)


def test_masks_too_and_proposals_not(one_box):
    """Boxes of IoU 0.72, masks of IoU 0.82."""
    predictions = found([(0, 0, 72, 100)], [0.9])
    predictions['masks'] = torch.zeros(1, 480, 640, dtype=torch.bool)
    predictions['masks'][:, :100, :82] = True
    metric = LocalizationCocoMetric(one_box, metric=['proposal_fast', 'proposal', 'segm', 'bbox'])
    report = evaluate(metric, [sample(1, predictions)])
    assert [report[f'coco/bbox_mAP_{percent}'] for percent in (60, 70, 80, 90)] == [1, 1, 0, 0]
    assert [report[f'coco/segm_mAP_{percent}'] for percent in (60, 70, 80, 90)] == [1, 1, 1, 0]
    assert sum('mAP_' in key for key in report) == 2 * (len(MMDET_ITEMS) - 1 + len(EXTRA_ITEMS))
    assert report['coco/AR@100'] == pytest.approx(0.5)


def test_precision_at_without_ground_truth_and_without_the_threshold(tmp_path):
    truths = COCO(coco_file(tmp_path, {1: []}))
    detection = dict(image_id=1, category_id=1, bbox=[0, 0, 9, 9], score=1)
    run = COCOeval(truths, truths.loadRes([detection]), 'bbox')
    run.evaluate()
    run.accumulate()
    assert precision_at(run, 0.6) == -1
    with pytest.raises(ValueError, match=r'0\.62 was not evaluated; evaluated were \[0\.5, 0\.55'):
        precision_at(run, 0.62)


# ------------------------------------------------------------------------------------- the options


def keys(report: dict) -> list[str]:
    return sorted(key.split('bbox_')[1] for key in report)


def test_metric_items_choose_among_all(one_box):
    samples = [sample(1, found([BOX], [0.9]))]
    for items in (['mAP', 'mAP_60'], ['mAP_80'], ['mAP_50']):
        assert keys(evaluate(LocalizationCocoMetric(one_box, metric_items=items), samples)) == sorted(items)
    with pytest.raises(KeyError, match='mAP_61'):
        evaluate(LocalizationCocoMetric(one_box, metric_items=['mAP_61']), samples)


def test_other_thresholds(one_box):
    metric = LocalizationCocoMetric(one_box, iou_thrs=[0.5, 0.625, 0.75], extra_iou_thrs=[0.625])
    report = evaluate(metric, [sample(1, found([(0, 0, 72, 100)], [0.9]))])
    assert keys(report) == sorted((*MMDET_ITEMS, 'mAP_62.5'))
    expected = {'mAP': 0.667, 'mAP_50': 1, 'mAP_62.5': 1, 'mAP_75': 0}
    assert {item: report[f'coco/bbox_{item}'] for item in expected} == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(iou_thrs=[0.5, 0.75]), r'extra_iou_thrs has 0\.6, .*iou_thrs = \[0\.5, 0\.75\].*evaluator'),
        (dict(extra_iou_thrs=[60]), r'extra_iou_thrs has 60, .*fractions'),
    ],
)
def test_threshold_that_is_not_evaluated(one_box, options, message):
    with pytest.raises(ValueError, match=message):
        LocalizationCocoMetric(one_box, **options)
    LocalizationCocoMetric(one_box, metric='proposal', **options)  # reports no AP, so nothing is missing


@pytest.mark.parametrize('name', ['LocalizationCocoMetric', 'LocalizationVOCMetric'])
def test_unknown_metric_is_mmdets_own_error(name):
    with pytest.raises(KeyError, match="metric should be one of 'bbox', 'segm', 'proposal'"):
        METRICS.build(dict(type=name, metric='box'))


def test_classes_that_are_not_in_the_annotation_file(one_box):
    metric = LocalizationCocoMetric(one_box)
    with pytest.raises(ValueError, match=r"classes \['cell'\] .* has \['thing'\].*metainfo"):
        metric.dataset_meta = {'classes': ('thing', 'cell')}


def test_no_detections_at_all(one_box):
    with logged() as log:
        assert evaluate(LocalizationCocoMetric(one_box), [sample(1, found())]) == {}
    assert 'The testing results of the whole dataset is empty.' in log
    assert LocalizationCocoMetric(one_box).compute_metrics([]) == {}


def test_format_only(one_box, tmp_path):
    metric = LocalizationCocoMetric(one_box, format_only=True, outfile_prefix=str(tmp_path / 'test'))
    assert evaluate(metric, [sample(1, found([BOX], [0.5]))]) == {}
    assert json.loads((tmp_path / 'test.bbox.json').read_text())[0]['bbox'] == [0, 0, 100, 100]


def test_mmdets_module_is_left_as_it_was(one_box):
    before = coco_metric.COCOeval, coco_metric.COCOevalMP
    with pytest.raises(KeyError):
        evaluate(LocalizationCocoMetric(one_box, metric='segm'), [sample(1, found([BOX], [0.9]))])
    assert (coco_metric.COCOeval, coco_metric.COCOevalMP) == before

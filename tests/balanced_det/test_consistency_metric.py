"""The measures of score and IoU as a metric of mmengine's evaluator, beside AP."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from metric_samples import BOX, FAR, coco_file, evaluate, found, logged, sample, truth
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.registry import METRICS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from balanced_det.evaluation import (
    ConsistencyMetric,
    LocalizationCocoMetric,
    LocalizationVOCMetric,
    consistency,
    match_detections,
    read_annotations,
    read_results,
)

CLASSES = ('thing', 'other')
HALF, MOST = (0, 0, 50, 100), (0, 0, 80, 100)  # IoU 0.5 and 0.8 with BOX
NOTHING = truth()
NAMES = ('detections', 'found', 'mean_gap', 'pearson', 'spearman', 'both_high')


def test_measures_by_hand():
    # IoUs .5, .8, 0 (another class) and 0 (nothing there); two found with gaps .1 and .2.
    samples = [
        sample(1, found([HALF, MOST], [0.6, 0.6]), gt_instances=truth([BOX])),
        sample(2, found([BOX, FAR], [0.9, 0.1], [1, 0]), gt_instances=truth([BOX], [0])),
        sample(3, found(), gt_instances=truth([BOX])),
    ]
    report = evaluate(ConsistencyMetric(min_score=0.05), samples, CLASSES)
    assert {key: value for key, value in report.items() if not math.isnan(value)} == pytest.approx(
        {
            'consistency/detections': 4,
            'consistency/found': 2,
            'consistency/mean_gap': 0.15,
            'consistency/both_high': 0.5,
        }
    )
    assert report.keys() == {f'consistency/{name}' for name in NAMES}


def random_samples(num_images=12):
    """Images with two classes, some without objects, with noisy detections whose scores tell a little."""
    rng = np.random.default_rng(0)
    samples = []
    for image in range(num_images):
        corner = rng.integers(0, 300, (rng.integers(0, 5), 2)).astype(float)
        boxes = np.hstack([corner, corner + rng.integers(20, 90, corner.shape)])
        labels = rng.integers(0, 2, len(boxes))
        noisy = np.tile(boxes, (3, 1)) + rng.normal(scale=3, size=(3 * len(boxes), 4))
        pred = found(noisy, rng.random(len(noisy)).round(2), np.tile(labels, 3))
        samples.append(sample(image, pred, gt_instances=truth(boxes, labels), ignored_instances=NOTHING))
    return samples


def images_of(samples):
    """As `coco_file` takes them."""
    return {
        s['img_id']: list(zip(s['gt_instances']['labels'].tolist(), s['gt_instances']['bboxes'].tolist()))
        for s in samples
    }


@pytest.mark.parametrize('limit', [4, 100])
def test_equals_the_measures_of_the_results_file(tmp_path, limit):
    samples = random_samples()
    file = coco_file(tmp_path, images_of(samples), CLASSES)
    evaluate(LocalizationCocoMetric(ann_file=file, outfile_prefix=str(tmp_path / 'out')), samples, CLASSES)
    ground_truth = read_annotations(tmp_path / 'instances.json')
    matched = match_detections(
        ground_truth, read_results(tmp_path / 'out.bbox.json', ground_truth), max_per_image=limit
    )
    expected = consistency(matched, min_iou=0.6, min_score=0.1, high_score=0.4, high_iou=0.7)
    metric = ConsistencyMetric(min_iou=0.6, min_score=0.1, high_score=0.4, high_iou=0.7, max_per_image=limit)
    report = evaluate(metric, samples, CLASSES)
    assert report == pytest.approx({f'consistency/{key}': value for key, value in expected._asdict().items()})
    assert 10 < expected.found < expected.detections


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_the_other_metric_keeps_its_numbers(tmp_path, kind):
    samples = random_samples()
    file = coco_file(tmp_path, images_of(samples), CLASSES)

    def report(*others):
        main = LocalizationCocoMetric(ann_file=file) if kind == 'coco' else LocalizationVOCMetric()
        evaluator = Evaluator([*others[:1], main, *others[1:]])
        evaluator.dataset_meta = dict(classes=CLASSES)
        evaluator.process(samples[:5])
        evaluator.process(samples[5:])
        return evaluator.evaluate(len(samples))

    alone = report()
    built = METRICS.build(dict(type='ConsistencyMetric'))
    for together in (report(built), report(*[ConsistencyMetric(prefix=prefix) for prefix in 'ab'])):
        assert {key: together[key] for key in alone} == alone  # to the last bit
    assert 0 < next(iter(alone.values())) < 1
    assert report(built)['consistency/found'] > 10


def test_crowds_are_not_matched():
    pred = found([BOX, FAR], [0.9, 0.8])
    crowded = sample(1, pred, gt_instances=truth([BOX]), ignored_instances=truth([FAR]))
    assert evaluate(ConsistencyMetric(), [crowded])['consistency/found'] == 1
    instances = [dict(bbox=BOX, bbox_label=0, ignore_flag=0), dict(bbox=FAR, bbox_label=0, ignore_flag=1)]
    # The data set's own boxes go before those of the pipeline, whatever that did to them.
    own = sample(1, pred, instances=instances, gt_instances=truth([FAR, BOX]))
    assert evaluate(ConsistencyMetric(), [own])['consistency/found'] == 1


def test_detector_types():
    """Half precision, boxes of a type of their own."""
    pred = {key: value.half() if value.is_floating_point() else value for key, value in found([MOST], [0.5]).items()}
    gt = dict(bboxes=HorizontalBoxes(torch.tensor([BOX], dtype=torch.float32)), labels=torch.tensor([0]))
    report = evaluate(ConsistencyMetric(), [sample(1, pred, gt_instances=gt)])
    assert report['consistency/mean_gap'] == pytest.approx(0.3)


def test_nothing_to_measure():
    empty = [sample(1, found(), gt_instances=truth([BOX])), sample(2, found(), gt_instances=NOTHING)]
    for samples in (empty, []):
        report = evaluate(ConsistencyMetric(), samples)
        assert report['consistency/detections'] == report['consistency/found'] == 0
        assert all(math.isnan(report[f'consistency/{name}']) for name in NAMES[2:])


def test_gpus_together_give_what_one_gives():
    """As mmengine gathers: a result of each image, in turns, and what pads the last batch is dropped."""
    samples = random_samples(num_images=5)
    metrics = [ConsistencyMetric() for _ in range(2)]
    metrics[0].process({}, samples[0::2])
    metrics[1].process({}, [*samples[1::2], samples[0]])
    gathered = [result for pair in zip(*(metric.results for metric in metrics)) for result in pair][: len(samples)]
    single = ConsistencyMetric()
    single.process({}, samples)
    assert single.compute_metrics(gathered) == single.compute_metrics(single.results)
    assert single.compute_metrics(gathered)['found'] > 3


def test_no_ground_truth():
    with pytest.raises(ValueError, match=r'no ground truth came with image 7\..*LoadAnnotations.*after Resize'):
        evaluate(ConsistencyMetric(), [sample(7, found(), gt_instances={})])


# ---------------------------------------------------------------------------- through mmdet's data pipeline


@pytest.mark.parametrize('order', ['after', 'before', 'instances'])
def test_boxes_of_a_pipeline_that_resizes(tmp_path, order):
    """An image enlarged twice; the detections are in pixels of the original, as mmdet's predictions are."""
    cv2 = pytest.importorskip('cv2')
    boxes = [(300, 200, 500, 400), (100, 300, 400, 470), (10, 10, 60, 60)]
    file = coco_file(tmp_path, {1: [(0, box) for box in boxes]})
    content = json.loads((tmp_path / 'instances.json').read_text())
    content['annotations'][2]['iscrowd'] = 1
    (tmp_path / 'instances.json').write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / '1.jpg'), np.zeros((480, 640, 3), np.uint8))
    resize = dict(type='mmdet.Resize', scale=(1280, 960), keep_ratio=True)
    annotations = dict(type='mmdet.LoadAnnotations', with_bbox=True)
    steps = [resize, annotations] if order == 'after' else [annotations, resize]
    keys = ('img_id', 'ori_shape', 'scale_factor', *(['instances'] if order == 'instances' else []))
    pack = dict(type='mmdet.PackDetInputs', meta_keys=keys)
    pipeline = [dict(type=LoadImageFromFile), *steps, pack]
    dataset = CocoDataset(
        ann_file=file,
        data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=('thing',)),
        test_mode=True,
        pipeline=pipeline,
    )
    data_sample = dataset[0]['data_samples']
    data_sample.pred_instances = InstanceData(**found(boxes, [0.9, 0.8, 0.7]))
    evaluator = Evaluator([ConsistencyMetric()])
    evaluator.dataset_meta = dataset.metainfo
    evaluator.process([data_sample])
    with logged() as log:
        report = evaluator.evaluate(1)
    warned = [line for line in log if 'put LoadAnnotations after Resize' in line]
    if order == 'before':
        assert '2 of 2 ground-truth boxes reach beyond their image' in warned[0]
    else:
        assert not warned
        assert report['consistency/found'] == 2  # not the crowd
        assert report['consistency/mean_gap'] == pytest.approx(0.15)

"""LocalizationVOCMetric: `difficult` by hand and by a plain loop, BCCD, agreement with the COCO metric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from metric_samples import BOX, EXTRA_ITEMS, FAR, coco_file, evaluate, found, logged, sample, truth
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import XMLDataset
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from reference.average_precision import Image, average_precision

from balanced_det.evaluation import LocalizationCocoMetric, LocalizationVOCMetric
from balanced_det.evaluation.localization_voc import IOU_THRS

BLOOD_CELLS = ('RBC', 'WBC', 'Platelets')
ORDINARY, DIFFICULT = BOX, (200, 200, 300, 300)


# ---------------------------------------------------------------------------------- difficult objects


def voc(predictions: dict, boxes=(ORDINARY,), difficult=(DIFFICULT,), img_id='000001', **labels) -> dict:
    return sample(
        img_id,
        predictions,
        gt_instances=truth(boxes, labels.get('labels')),
        ignored_instances=truth(difficult, labels.get('difficult_labels')),
    )


@pytest.mark.parametrize(
    ('boxes', 'ap'),
    [
        # the ordinary object is found, last; AP is 1 as long as nothing before it is a false positive
        pytest.param([ORDINARY], {50: 1, 90: 1}, id='a difficult object is not missed'),
        pytest.param([DIFFICULT, ORDINARY], {50: 1, 90: 1}, id='a detection of it is no false positive'),
        # the second has IoU 0.8 with it: too little at 0.85 and 0.9, so there it is a false positive
        pytest.param(
            [DIFFICULT, (200, 200, 280, 300), ORDINARY],
            {50: 1, 80: 1, 85: 0.5, 90: 0.5},
            id='nor is a second detection',
        ),
        # inside it, with IoU 0.3
        pytest.param([(200, 200, 230, 300), ORDINARY], {50: 0.5, 90: 0.5}, id='inside is not enough'),
        pytest.param([DIFFICULT], {50: 0, 90: 0}, id='nor is it a true positive'),
    ],
)
def test_difficult(boxes, ap, backend):
    scores = np.linspace(0.9, 0.5, len(boxes))
    report = evaluate(LocalizationVOCMetric(backend=backend), [voc(found(boxes, scores))])
    assert {percent: report[f'pascal_voc/bbox_mAP_{percent}'] for percent in ap} == ap


def test_difficult_is_not_coco_crowd(backend):
    """Stock CocoMetric makes `difficult` a crowd, where being inside is enough."""
    boxes = [(200, 200, 230, 300), ORDINARY]
    instances = [
        dict(bbox=ORDINARY, bbox_label=0, ignore_flag=0),
        dict(bbox=DIFFICULT, bbox_label=0, ignore_flag=1),
    ]
    samples = [sample('000001', found(boxes, [0.9, 0.5]), instances=instances)]
    assert evaluate(CocoMetric(), samples)['coco/bbox_mAP'] == 1
    for use_mp_eval in (False, True):
        metric = LocalizationVOCMetric(backend=backend, use_mp_eval=use_mp_eval)
        assert evaluate(metric, samples)['pascal_voc/bbox_mAP'] == 0.5


def test_ordinary_object_is_preferred_to_a_difficult_one():
    """IoU 0.6 with the ordinary object, 0.8 with the difficult one: found, up to 0.6."""
    detection, overlapping = (0, 0, 60, 100), (0, 0, 75, 100)
    report = evaluate(LocalizationVOCMetric(), [voc(found([detection], [0.9]), difficult=[overlapping])])
    assert [report[f'pascal_voc/bbox_mAP_{percent}'] for percent in (50, 60, 70)] == [1, 1, 0]


def test_class_without_ordinary_ground_truth_is_not_counted(backend):
    """Of three classes one has only a difficult object and one has nothing but a false positive."""
    predictions = found([ORDINARY, DIFFICULT, FAR], [0.9, 0.9, 0.9], [0, 1, 2])
    samples = [voc(predictions, labels=[0], difficult_labels=[1])]
    report = evaluate(LocalizationVOCMetric(backend=backend), samples, BLOOD_CELLS)
    assert report['pascal_voc/bbox_mAP'] == report['pascal_voc/bbox_mAP_90'] == 1
    empty = voc(predictions, boxes=(), difficult=())
    nothing = evaluate(LocalizationVOCMetric(backend=backend), [empty], BLOOD_CELLS)
    assert nothing['pascal_voc/bbox_mAP'] == nothing['pascal_voc/bbox_mAP_90'] == -1


def test_second_epoch_gives_the_same(backend):
    metric = LocalizationVOCMetric(backend=backend)
    samples = [voc(found([DIFFICULT, ORDINARY], [0.9, 0.8])), voc(found(), img_id='000002')]
    first = evaluate(metric, samples)
    assert first['pascal_voc/bbox_mAP'] == round(51 / 101, 3)  # one of two objects: recalls 0 ... 0.5
    assert evaluate(metric, samples) == first


XML_OBJECT = """<object><name>RBC</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def xml_dataset(root: Path, ann_file: str, steps: Sequence[dict] = (), **meta) -> XMLDataset:
    """mmdet's VOC data set with the annotation steps of its stock test pipeline."""
    packing = [dict(type='mmdet.LoadAnnotations', with_bbox=True), dict(type='mmdet.PackDetInputs', **meta)]
    return XMLDataset(
        data_root=str(root),
        ann_file=ann_file,
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=BLOOD_CELLS),
        test_mode=True,
        pipeline=[*steps, *packing],
    )


def test_difficult_flag_arrives_from_the_xml_file(tmp_path):
    """From the file through mmdet's data set, pipeline and mmengine's Evaluator."""
    cv2 = pytest.importorskip('cv2')
    for folder in ('Annotations', 'JPEGImages'):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / 'JPEGImages/a.jpg'), np.zeros((480, 640, 3), np.uint8))
    objects = XML_OBJECT.format(0, 1, 1, 101, 101) + XML_OBJECT.format(1, 201, 201, 301, 301)
    size = '<size><width>640</width><height>480</height></size>'
    (tmp_path / 'Annotations/a.xml').write_text(f'<annotation>{size}{objects}</annotation>')
    (tmp_path / 'val.txt').write_text('a\n')
    resize = dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True)
    steps = [dict(type=LoadImageFromFile), resize]
    dataset = xml_dataset(tmp_path, 'val.txt', steps, meta_keys=('img_id', 'ori_shape'))
    data_sample = dataset[0]['data_samples']
    boxes = [DIFFICULT, (205, 200, 300, 300), ORDINARY]  # mmdet subtracts 1 from VOC's corners
    data_sample.pred_instances = InstanceData(**found(boxes, [0.9, 0.8, 0.7]))
    evaluator = Evaluator([METRICS.build(dict(type='LocalizationVOCMetric'))])
    evaluator.dataset_meta = dataset.metainfo
    evaluator.process([data_sample])
    report = evaluator.evaluate(1)
    assert report['pascal_voc/bbox_mAP_90'] == 1  # IoU 0.95 and 1 with the difficult object
    assert report['pascal_voc/bbox_mAP'] == 1


# --------------------------------------------------------------------------------------------- BCCD


@pytest.fixture(scope='module')
def blood_cells(shared_data) -> list[dict]:
    """All 364 images: ground truth from mmdet's own data set, no image loaded."""
    samples = []
    for split in ('trainval', 'test'):
        dataset = xml_dataset(shared_data / 'bccd', f'ImageSets/Main/{split}.txt', meta_keys=('img_id',))
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            data_sample = dataset[index]['data_samples'].to_dict()
            samples.append({**data_sample, 'ori_shape': (info['height'], info['width'])})
    return samples


def cells(data_sample: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of positive size, and their labels."""
    boxes = data_sample['gt_instances']['bboxes'].numpy().astype(float)
    labels = data_sample['gt_instances']['labels'].numpy()
    sized = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return boxes[sized], labels[sized]


def jittered(data_sample: dict, rng: np.random.Generator) -> dict:
    """Two noisy detections around most objects, some false positives, scores that tell little."""
    boxes, labels = cells(data_sample)
    boxes, labels = np.tile(boxes, (2, 1)), np.tile(labels, 2)
    wide = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + rng.normal(scale=0.06, size=boxes.shape) * wide
    labels = np.where(rng.random(len(labels)) < 0.1, rng.integers(0, 3, len(labels)), labels)
    kept = (rng.random(len(labels)) < 0.8) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return found(boxes[kept], rng.random(kept.sum()), labels[kept])


def test_ground_truth_as_detections_is_perfect(blood_cells):
    assert len(blood_cells) == 364
    samples = []
    for data_sample in blood_cells:
        boxes, labels = cells(data_sample)
        samples.append({**data_sample, 'pred_instances': found(boxes, [1.0] * len(boxes), labels)})
    with logged() as log:
        report = evaluate(LocalizationVOCMetric(), samples, BLOOD_CELLS)
    for item in ('mAP', 'mAP_50', 'mAP_75', *EXTRA_ITEMS):
        assert report[f'pascal_voc/bbox_{item}'] == 1
    left_out = [line for line in log if 'zero width or height' in line]
    assert len(left_out) == 1
    assert 'left out 2 ground-truth boxes' in left_out[0]
    assert 'BloodImage_00338, BloodImage_00343' in left_out[0]
    # stock CocoMetric keeps the two, and they cannot be found: even these detections are not perfect there
    stock = [
        {**s, 'instances': [dict(bbox=b, bbox_label=k) for b, k in zip(*(v.tolist() for v in rows.values()))]}
        for s in samples
        for rows in [{key: s['gt_instances'][key].numpy() for key in ('bboxes', 'labels')}]
    ]
    assert evaluate(CocoMetric(), stock, BLOOD_CELLS)['coco/bbox_mAP'] < 1


def test_agrees_with_the_coco_metric(blood_cells, tmp_path):
    """Same boxes, none difficult: same numbers, whatever the file format."""
    rng = np.random.default_rng(0)
    samples = [{**s, 'pred_instances': jittered(s, rng)} for s in blood_cells[:100]]
    images = {s['img_id']: [(int(label), tuple(map(float, box))) for box, label in zip(*cells(s))] for s in samples}
    ann_file = coco_file(tmp_path, images, BLOOD_CELLS)
    coco = evaluate(LocalizationCocoMetric(ann_file), samples, BLOOD_CELLS)
    ours = evaluate(LocalizationVOCMetric(), samples, BLOOD_CELLS)
    assert {key.split('/')[1]: value for key, value in ours.items()} == {
        key.split('/')[1]: value for key, value in coco.items()
    }
    assert 0.2 < ours['pascal_voc/bbox_mAP'] < 0.8  # neither trivial


def test_difficult_against_a_plain_loop(blood_cells, backend):
    """Every third object made difficult at random, crowded images, two detections per object."""
    rng = np.random.default_rng(1)
    samples, images = [], defaultdict(list)
    for data_sample in blood_cells[:60]:
        boxes, labels = cells(data_sample)
        difficult = rng.random(len(boxes)) < 1 / 3
        predictions = jittered(data_sample, rng)
        sides = [truth(boxes[side], labels[side]) for side in (~difficult, difficult)]
        fields = {**data_sample, 'gt_instances': sides[0], 'ignored_instances': sides[1]}
        samples.append({**fields, 'pred_instances': predictions})
        for label in range(3):
            mine, theirs = labels == label, predictions['labels'].numpy() == label
            detections = predictions['bboxes'].numpy()[theirs].tolist()
            scores = predictions['scores'].numpy()[theirs].tolist()
            images[label].append(Image(boxes[mine].tolist(), difficult[mine].tolist(), detections, scores))
    report = evaluate(LocalizationVOCMetric(backend=backend), samples, BLOOD_CELLS)
    expected = {thr: np.mean([average_precision(images[k], thr) for k in range(3)]) for thr in IOU_THRS}
    rounding = 5.001e-4
    for percent in (50, 60, 70, 75, 80, 85, 90):
        value = report[f'pascal_voc/bbox_mAP_{percent}']
        assert value == pytest.approx(expected[percent / 100], abs=rounding)
    assert report['pascal_voc/bbox_mAP'] == pytest.approx(np.mean(list(expected.values())), abs=rounding)


# ---------------------------------------------------------------------------------------- bad input


def test_no_ground_truth():
    with pytest.raises(ValueError, match=r"no ground truth came with image '000001'.*LoadAnnotations"):
        evaluate(LocalizationVOCMetric(), [sample('000001', found(), gt_instances={})])


def test_same_image_twice():
    with pytest.raises(ValueError, match=r"image ids \['000001'\] occur more than once"):
        evaluate(LocalizationVOCMetric(), [voc(found([BOX], [0.9]))] * 2)


def test_annotation_file_is_refused():
    with pytest.raises(ValueError, match=r"ann_file = 'x\.json', .*LocalizationCocoMetric"):
        LocalizationVOCMetric(ann_file='x.json')


def test_boxes_beyond_the_image_are_kept_and_logged():
    beyond = (600, 0, 700, 100)
    with logged() as log:
        report = evaluate(LocalizationVOCMetric(), [voc(found([beyond], [0.9]), boxes=[beyond])])
    assert report['pascal_voc/bbox_mAP'] == 1
    assert any('1 ground-truth boxes reach beyond their image, in images 000001.' in line for line in log)

"""RefineDet's detections: two decodings, easy negatives without a class, and mmdet's limits."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from reference import refinedet as reference
from reference.boxes import decode
from refinedet_cases import (
    COUNTS,
    METHODS,
    MODEL,
    SIZE,
    C,
    build,
    giving,
    images_of,
    outputs,
    pixels,
    samples,
)


def predict(outs, model=None, data=None, rescale=False, **test_cfg):
    """Detections of each image as tuples (score, label, box), best first."""
    model = giving(model or build(), outs)
    model.bbox_head.test_cfg = ConfigDict(MODEL['test_cfg'], **test_cfg)
    with torch.no_grad():
        results = model.predict(pixels(), data or samples(), rescale=rescale)
    return [
        [
            reference.Detection(score, label, tuple(box))
            for score, label, box in zip(
                found.pred_instances.scores.tolist(),
                found.pred_instances.labels.tolist(),
                found.pred_instances.bboxes.tolist(),
            )
        ]
        for found in results
    ]


def assert_same(found, expected):
    for got, want in zip(found, expected):
        assert len(got) == len(want) > 0
        for mine, theirs in zip(got, want):
            assert mine.score == pytest.approx(theirs.score, rel=1e-5)
            assert mine.label == theirs.label
            assert mine.box == pytest.approx(theirs.box, rel=1e-4, abs=1e-3)


def naive(outs, threshold=0.01, score_thr=0.01, **limits):
    return [
        reference.detect(reference.candidates(image, SIZE, threshold, score_thr), COUNTS, **limits)
        for image in images_of(outs)
    ]


@pytest.mark.parametrize('seed', [0, 1])
def test_detections_equal_naive_loops(seed):
    outs = outputs(seed)
    expected = naive(outs)
    assert_same(predict(outs), expected)
    assert naive(outs, threshold=0.0) != expected  # the filter has its part


@pytest.mark.parametrize('threshold', [0.0, 0.3, 1.1])
def test_objectness_threshold(threshold):
    outs = outputs()
    found = predict(outs, build(bbox_head=dict(objectness_thr=threshold)))
    if threshold > 1:
        assert found == [[], []]
    else:
        assert_same(found, naive(outs, threshold=threshold))


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (dict(nms_pre=7), dict(nms_pre=7)),  # of each level
        (dict(max_per_img=5), dict(keep=5)),
        (dict(score_thr=0.5), dict(score_thr=0.5)),
        (dict(nms=dict(type='nms', iou_threshold=0.8)), dict(overlap=0.8)),
    ],
)
def test_limits(ours, theirs):
    outs = outputs()
    expected = naive(outs, **theirs)
    assert [len(image) for image in expected] != [len(image) for image in naive(outs)]
    assert_same(predict(outs, **ours), expected)


def test_one_anchor_by_hand():
    """Anchor 0, of level 0: 32 pixels around (4, 4). ARM: 10 % to the right; ODM: twice as wide."""

    def one(rows):
        for key, value in dict(arm_cls=[-9.0, 9.0], arm_bbox=0.0, odm_cls=[0.0] * C + [20.0], odm_bbox=0.0).items():
            rows[key][:] = torch.tensor(value)
        rows['arm_cls'][0, 0] = torch.tensor([2.0, 2.0])
        rows['arm_bbox'][0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        rows['odm_cls'][0, 0] = torch.log(torch.tensor([0.1, 0.6, 0.1, 0.2]))
        rows['odm_bbox'][0, 0] = torch.tensor([0.0, 0.0, torch.log(torch.tensor(2.0)) / 0.2, 0.0])

    found = predict(outputs(edit=one), score_thr=0.2)
    # Centre 4 + 3.2 = 7.2, width 64: from -24.8 to 39.2; height 32: from -12 to 20; clipped to the image.
    assert_same([found[0]], [[reference.Detection(0.6, 1, (0.0, 0.0, 39.2, 20.0))]])
    assert found[1] == []


def test_filtered_anchor_has_no_class():
    """An anchor with one class at 0.999 and an objectness just below, or just above, the threshold."""
    for objectness, number in ((0.0099, 0), (0.0101, 1)):

        def one(rows, objectness=objectness):
            rows['odm_cls'][:] = torch.tensor([0.0] * C + [20.0])
            rows['odm_cls'][0, 100] = torch.tensor([0.0, 9.0, 0.0, 0.0])
            rows['arm_cls'][0, 100] = torch.tensor([objectness, 1 - objectness]).log()

        assert len(predict(outputs(edit=one))[0]) == number


def test_rescale_divides_by_the_scale_factor():
    outs, data = outputs(), samples()
    for sample, factor in zip(data, ((0.5, 2.0), (4.0, 1.0))):
        sample.set_metainfo(dict(scale_factor=factor))
    for (w, h), got, want in zip(((0.5, 2.0), (4.0, 1.0)), predict(outs, data=data, rescale=True), predict(outs)):
        expected = [one._replace(box=tuple(x / f for x, f in zip(one.box, (w, h, w, h)))) for one in want]
        assert_same([got], [expected])
    assert 'refined' not in data[0].metainfo


def test_boxes_are_clipped_to_the_image_not_to_its_padding():
    data = samples()
    for sample in data:
        sample.set_metainfo(dict(img_shape=(50, 40)))
    boxes = torch.tensor([one.box for image in predict(outputs(), data=data) for one in image])
    assert boxes.amax(dim=0)[2:].tolist() == [40, 50]
    assert boxes.amin() == 0


@pytest.mark.parametrize('method', METHODS)
def test_balanced_heads_detect_as_the_stock_one(method):
    """From the images: the whole way, in evaluation mode."""
    model, stock = (build(**METHODS[name]).eval() for name in (method, 'stock'))
    with torch.no_grad():
        found, expected = (m.predict(pixels(), samples()) for m in (model, stock))
    for got, want in zip(found, expected):
        assert len(want.pred_instances) > 0
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(got.pred_instances[key], want.pred_instances[key])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """mmengine's test loops have ``fp16=True``."""
    outs = outputs()
    half = [[[level.detach().to(dtype) for level in maps] for maps in of_head] for of_head in outs]
    with torch.autocast('cpu', dtype=dtype):
        found = predict(half, score_thr=0.5)
    for image, detections in zip(images_of(half), found):
        everything = [d for of_anchor in reference.candidates(image, SIZE, score_thr=0.45) for d in of_anchor]
        assert len(detections) > 5
        for one in detections:  # each is a candidate of the rounded outputs, but for a pixel and a percent
            assert any(
                one.label == other.label
                and abs(one.score - other.score) < 0.01
                and max(abs(a - b) for a, b in zip(one.box, other.box)) < 1
                for other in everything
            )


def test_first_anchor_of_the_reference():
    """The reference itself, by hand: width 32 * exp(0.2), centre 4 + 0.1 * 32."""
    box = decode(reference.anchors([(1, 1)])[0], (1.0, 0.0, 1.0, 0.0), reference.STDS)
    assert box == pytest.approx((7.2 - 19.5424, -12, 7.2 + 19.5424, 20), abs=1e-3)

"""RefineDet's losses: two matchings, easy negatives left out, and constants between the heads."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from reference import refinedet as reference
from refinedet_cases import (
    ANCHORS,
    BOXES,
    CHANNELS,
    CODER,
    LABELS,
    METHODS,
    MODEL,
    SIZES,
    C,
    build,
    giving,
    images_of,
    levels_of,
    losses_of,
    outputs,
    pixels,
    samples,
    summed,
)

ODM, ARM = ('loss_cls', 'loss_bbox'), ('arm_loss_cls', 'arm_loss_bbox')


@pytest.fixture
def model():
    return build()


def naive(images, threshold=0.01):
    """Losses by name, and the mined samples of both heads."""
    arm, odm = [reference.mine_arm(image) for image in images], [reference.mine_odm(i, threshold) for i in images]
    losses = [
        *reference.losses(reference.arm_samples(images, arm), reference.divisor(arm)),
        *reference.losses(reference.odm_samples(images, odm), reference.divisor(odm)),
    ]
    return dict(zip((*ARM, *ODM), losses)), arm, odm


def values(losses):
    return {key: value.item() for key, value in losses.items()}


def naive_gradients(logits, deltas, labels, targets, mined, factor):
    """Of cross-entropy and smooth L1 with beta 1, of one image; zero but at the mined samples."""
    of_logits, of_deltas = ([[0.0] * len(row) for row in rows] for rows in (logits, deltas))
    for i in (*mined.owner, *mined.negatives):
        label = labels[mined.owner[i]] if i in mined.owner else len(logits[i]) - 1
        of_logits[i] = [(p - (k == label)) / factor for k, p in enumerate(reference.softmax(logits[i]))]
    for i, target in zip(sorted(mined.owner), targets):
        of_deltas[i] = [min(max(p - t, -1.0), 1.0) / factor for p, t in zip(deltas[i], target)]
    return of_logits, of_deltas


def assert_gradients(losses, maps, expected, width):
    grads = torch.autograd.grad(sum(losses), [*maps[0], *maps[1]], retain_graph=True)
    for number, (of_logits, of_deltas) in enumerate(expected):
        for levels, wanted, columns in ((grads[:4], of_logits, width), (grads[4:], of_deltas, 4)):
            torch.testing.assert_close(
                torch.tensor(reference.rows(levels, number, columns)), torch.tensor(wanted), rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_losses_and_gradients_equal_naive_loops(model, seed):
    outs = outputs(seed)
    images, losses = images_of(outs), losses_of(model, outs)
    expected, arm, odm = naive(images)
    assert values(losses) == pytest.approx(expected, rel=2e-6)
    # The case is worth something: refinement changes the positives, a box has a forced match, negatives are filtered.
    assert [m.owner for m in arm] != [m.owner for m in odm]
    assert all(len(m.negatives) == 3 * len(m.owner) > 3 for m in (*arm, *odm))
    gradients = [
        naive_gradients(
            i.arm_logits, i.arm_deltas, [0] * len(i.boxes), m.targets(i.anchors, i.boxes), m, reference.divisor(arm)
        )
        for i, m in zip(images, arm)
    ]
    assert_gradients([losses[key] for key in ARM], outs[0], gradients, 2)
    gradients = [
        naive_gradients(i.logits, i.deltas, i.labels, m.targets(i.refined, i.boxes), m, reference.divisor(odm))
        for i, m in zip(images, odm)
    ]
    assert_gradients([losses[key] for key in ODM], outs[1], gradients, C + 1)


def test_every_box_is_an_object_to_the_refinement(model):
    stock = MODELS.build(
        dict(
            type='SSDHead',
            num_classes=1,
            in_channels=CHANNELS,
            anchor_generator=ANCHORS,
            bbox_coder=CODER,
            train_cfg=MODEL['train_cfg'],
        )
    )
    data, outs = samples(), outputs()
    losses = losses_of(model, outs, data)
    assert [sample.gt_instances.labels.tolist() for sample in data] == LABELS  # as they were
    objects = [sample.gt_instances for sample in samples(labels=[[0, 0], [0]])]
    expected = summed(stock.loss_by_feat(*outs[0], objects, [sample.metainfo for sample in data]))
    maps = [*outs[0][0], *outs[0][1]]
    for mine, theirs in zip(ARM, ODM):
        torch.testing.assert_close(losses[mine], expected[theirs])
    grads = [torch.autograd.grad(sum(x), maps) for x in ([losses[key] for key in ARM], expected.values())]
    for pair in zip(*grads):
        torch.testing.assert_close(*pair)


@pytest.mark.parametrize('threshold', [0.0, 0.01, 0.3])
def test_easy_negatives_are_not_mined(threshold):
    outs = outputs()
    expected, _, mined = naive(images_of(outs), threshold)
    losses = losses_of(build(bbox_head=dict(objectness_thr=threshold)), outs)
    assert values(losses) == pytest.approx(expected, rel=2e-6)
    # With each threshold other negatives are the hardest, and the loss is another.
    unfiltered, _, everything = naive(images_of(outs), 0.0)
    assert (unfiltered['loss_cls'] > 1.02 * expected['loss_cls']) == (threshold > 0)
    assert (mined != everything) == (threshold > 0)
    assert unfiltered['loss_bbox'] == expected['loss_bbox']


def test_negatives_at_the_threshold():
    """Not below it is not easy: an objectness of exactly 1/2 stays for a threshold of 1/2."""

    def even(rows):
        rows['arm_cls'][:] = 0.0

    outs = outputs(edit=even)
    expected, *_ = naive(images_of(outs), 0.0)
    assert values(losses_of(build(bbox_head=dict(objectness_thr=0.5)), outs)) == pytest.approx(expected, rel=2e-6)


def test_positive_of_low_objectness_stays(model):
    _, _, mined = naive(images_of(outputs()))

    def doubtful(rows):
        for number, samples_of in enumerate(mined):
            rows['arm_cls'][number, list(samples_of.owner)] = torch.tensor([-4.0, 4.0])

    outs = outputs(edit=doubtful)
    images = images_of(outs)
    assert all(image.objectness[i] < 0.01 for image, m in zip(images, mined) for i in m.owner)
    losses = losses_of(model, outs)
    before, after = (losses_of(build(), o) for o in (outputs(), outs))
    assert values(losses) == pytest.approx(naive(images)[0], rel=2e-6)
    for key in ODM:  # of the ODM nothing has changed
        torch.testing.assert_close(after[key], before[key])


def test_all_negatives_filtered(model):
    def background(rows):
        rows['arm_cls'][:] = torch.tensor([-5.0, 5.0])

    outs = outputs(edit=background)
    expected, _, mined = naive(images_of(outs))
    assert not any(m.negatives for m in mined)
    losses = losses_of(model, outs)
    assert values(losses) == pytest.approx(expected, rel=2e-6)
    grads = torch.autograd.grad(losses['loss_cls'], outs[1][0])
    touched = [{i for i, row in enumerate(reference.rows(grads, n, C + 1)) if any(row)} for n in range(2)]
    assert touched == [m.owner.keys() for m in mined]


def test_anchors_of_the_padding_do_not_count(model):
    """An image that is 40 pixels wide where the batch is 64: mmdet leaves out the places beyond."""
    outs, data = outputs(), samples([[[4.0, 6, 38, 37]], [[3.0, 2, 39, 57]]], [[0], [1]])
    for sample in data:
        sample.set_metainfo(dict(pad_shape=(64, 40), img_shape=(64, 40)))
    columns = [(8, 5), (4, 3), (2, 2), (1, 1)]  # of so many; 40 / 8, 40 / 16 and so on, rounded up
    inside = [
        x < kept
        for (height, width), (_, kept) in zip(SIZES, columns)
        for _ in range(height)
        for x in range(width)
        for _ in range(3)
    ]
    images = [
        image._replace(
            **{
                key: [row for row, keep in zip(getattr(image, key), inside) if keep]
                for key in ('anchors', 'arm_logits', 'arm_deltas', 'logits', 'deltas')
            }
        )
        for image in images_of(outs, [[[4.0, 6, 38, 37]], [[3.0, 2, 39, 57]]], [[0], [1]])
    ]
    assert sum(inside) < len(inside)
    assert values(losses_of(model, outs, data)) == pytest.approx(naive(images)[0], rel=2e-6)


def test_no_gradient_of_the_detection_in_the_refinement(model):
    outs = outputs()
    losses = losses_of(model, outs)

    def reached(keys):
        """Whether the losses have a gradient in the scores and deltas of the ARM, and in those of the ODM."""
        maps = [maps for of_head in outs for maps in of_head]
        grads = [
            torch.autograd.grad(sum(losses[k] for k in keys), m, allow_unused=True, retain_graph=True) for m in maps
        ]
        return [any(grad is not None and grad.ne(0).any() for grad in of_maps) for of_maps in grads]

    assert reached(ARM) == [True, True, False, False]
    assert reached(ODM) == [False, False, True, True]
    (refined, objectness), _ = (meta['refined'] for meta in model.with_refined([{}, {}], outs[0]))
    assert not refined.requires_grad
    assert not objectness.requires_grad


def test_both_losses_teach_the_sources(model):
    # A box for the anchors of each level, so that the deepest source has its part in both losses.
    boxes = [[10.0, 12, 40, 40], [60, 70, 130, 120], [100, 8, 220, 140], [5, 9, 250, 245]]
    size = (256, 256)
    losses = losses_of(model, data=samples([boxes] * 2, [[0, 1, 2, 0]] * 2, size), size=size)
    groups = {name: list(child.parameters()) for name, child in model.named_children() if name != 'data_preprocessor'}

    def taught(keys):
        loss = sum(losses[key] for key in keys)
        grads = {
            name: torch.autograd.grad(loss, group, allow_unused=True, retain_graph=True)
            for name, group in groups.items()
        }
        return {name for name, of in grads.items() if any(g is not None and g.abs().sum() > 0 for g in of)}

    assert taught(ARM) == {'backbone', 'neck', 'arm_head'}
    assert taught(ODM) == {'backbone', 'neck', 'transfer', 'bbox_head'}


def test_refined_anchors_equal_naive_decoding(model):
    outs, metas = outputs(), [dict(number=0), dict(number=1)]
    found = model.with_refined(metas, outs[0])
    assert metas == [dict(number=0), dict(number=1)]
    for image, meta, number in zip(images_of(outs), found, range(2)):
        assert meta['number'] == number
        torch.testing.assert_close(meta['refined'].priors, torch.tensor(image.refined), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(meta['refined'].objectness, torch.tensor(image.objectness), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('boxes', [[[], []], [BOXES[0], []]], ids=['none', 'one image without'])
@pytest.mark.parametrize('method', METHODS)
def test_images_without_boxes_hang_on_the_graph(method, boxes):
    model = build(**METHODS[method])
    losses = losses_of(model, data=samples(boxes, [LABELS[0][: len(boxes[0])], []]))
    if not boxes[0]:
        assert set(values(losses).values()) == {0.0}
    else:
        assert all(value > 0 for key, value in values(losses).items() if 'tc' not in key)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad.ne(0).any() for p in model.parameters()) == bool(boxes[0])


@pytest.mark.parametrize('box', [[10.0, 10, 10, 30], [70.0, 5, 90, 20]], ids=['zero size', 'outside'])
@pytest.mark.parametrize('method', METHODS)
def test_box_without_an_area_is_left_out(method, box):
    model, outs = build(**METHODS[method]), outputs()
    data = samples([[*BOXES[0], box], BOXES[1]], [[*LABELS[0], 1], LABELS[1]])
    found = giving(model, outs).loss(pixels(), data)
    assert found.pop('gt_left_out') == 1
    assert all('loss' in key for key in found)
    expected = values(losses_of(model, outs))
    assert values(summed(found)) == expected
    assert len(data[0].gt_instances) == 3


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('method', METHODS)
def test_half_precision_outputs_give_float32_losses(method, dtype):
    """The outputs are rounded, nothing after them: a rounded anchor would match and encode differently."""
    model, outs = build(**METHODS[method]), outputs()
    half = [[[level.detach().to(dtype) for level in maps] for maps in of_head] for of_head in outs]
    full = [[[level.float().requires_grad_() for level in maps] for maps in of_head] for of_head in half]
    with torch.autocast('cpu', dtype=dtype):
        found = losses_of(model, half)
    for key, value in losses_of(model, full).items():
        torch.testing.assert_close(found[key].float(), value, rtol=5e-3, atol=0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('method', METHODS)
def test_autocast_of_the_whole_detector(method, dtype):
    model = build(**METHODS[method])
    expected = losses_of(model)
    with torch.autocast('cpu', dtype=dtype):
        found = losses_of(model)
    sum(found.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    for key, value in expected.items():
        torch.testing.assert_close(found[key].float(), value, rtol=0.1, atol=0.02)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_refined_anchors_of_half_precision_are_float32(model, dtype):
    """The ARM's outputs are rounded; an anchor of 90.51 pixels (bfloat16: 90.5) and its decoding are not."""
    outs = outputs()
    half = [[level.detach().to(dtype) for level in maps] for maps in outs[0]]
    with torch.autocast('cpu', dtype=dtype):
        found = [meta['refined'] for meta in model.with_refined([{}, {}], half)]
    for (priors, objectness), image in zip(found, images_of((half, outs[1]))):
        torch.testing.assert_close(priors, torch.tensor(image.refined), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(objectness, torch.tensor(image.objectness), rtol=1e-4, atol=1e-7)


def test_detection_head_in_another_detector():
    head = build().bbox_head
    maps = levels_of(torch.zeros(2, 255, C + 1)), levels_of(torch.zeros(2, 255, 4))
    data = samples()
    metas = [sample.metainfo for sample in data]
    for call in (
        lambda: head.loss_by_feat(*maps, [sample.gt_instances for sample in data], metas),
        lambda: head.predict_by_feat(*maps, batch_img_metas=metas),
    ):
        with pytest.raises(KeyError, match='it is the bbox_head of a RefineDet'):
            call()

"""IoU-balanced losses and HarmonicDet in RefineDet: neutral they are the stock detector, else the naive loops."""

from __future__ import annotations

import pytest
import torch
from reference import harmonic as harmonic_reference
from reference import iou_balanced as balanced_reference
from reference import refinedet as reference
from refinedet_cases import (
    BALANCED_ARM,
    BALANCED_ODM,
    BETA,
    HARMONIC_ARM,
    HARMONIC_ODM,
    LOSSES,
    NEUTRAL,
    C,
    build,
    fitting_outputs,
    images_of,
    losses_of,
    outputs,
)

OFF = dict(loss_joint=dict(type='HarmonicDetLoss', harmonic=False, hiou=False, tc=False))
# Head, its columns, how its samples are found, and the prefix of its losses.
ODM = ('bbox_head', C, reference.mine_odm, reference.odm_samples, '')
ARM = ('arm_head', 1, reference.mine_arm, reference.arm_samples, 'arm_')


@pytest.mark.parametrize(
    'blocks',
    [
        dict(bbox_head=dict(BALANCED_ODM['bbox_head'], **NEUTRAL)),
        dict(arm_head=dict(BALANCED_ARM['arm_head'], **NEUTRAL)),
        dict(bbox_head=dict(type='IoUBalancedRefineDetHead'), arm_head=dict(type='IoUBalancedDSSDHead')),
        dict(bbox_head=dict(HARMONIC_ODM['bbox_head'], **OFF), arm_head=dict(HARMONIC_ARM['arm_head'], **OFF)),
    ],
    ids=['eta 0, lambda 0', 'eta 0, lambda 0 in the ARM', 'without blocks', 'HarmonicDet off'],
)
def test_neutral_losses_equal_the_stock_detector(blocks):
    model, stock = build(**blocks), build()
    assert model.state_dict().keys() == stock.state_dict().keys()
    found, expected = losses_of(model), losses_of(stock)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    sum(found.values()).backward()
    sum(expected.values()).backward()
    for mine, theirs in zip(model.parameters(), stock.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def mined_samples(images, head):
    _, _, mine, samples, _ = head
    mined = [mine(image) for image in images]
    return samples(images, mined), reference.divisor(mined), mined


def naive_balanced(samples, factor, num_classes):
    """Eq. 3-6 of paper A over the positives of the batch."""
    logits, labels, deltas, targets = samples
    positives = [i for i, label in enumerate(labels) if label < num_classes]
    ious = dict(zip(positives, map(reference_iou, deltas, targets)))
    loss_cls = balanced_reference.softmax_classification(logits, labels, ious, 1.5, num_classes)
    loss_bbox = balanced_reference.localisation(deltas, targets, beta=BETA, lambda_=1.5, stds=reference.STDS)
    return dict(loss_cls=loss_cls / factor, loss_bbox=loss_bbox / factor)


def reference_iou(delta, target):
    return balanced_reference.delta_iou(delta, target, reference.STDS)


def naive_harmonic(samples, factor, num_classes):
    """Eq. 12 of paper B."""
    logits, labels, deltas, targets = samples
    positives = [i for i, label in enumerate(labels) if label < num_classes]
    ce = [balanced_reference.softmax_loss(row, label) for row, label in zip(logits, labels)]
    bbox = [sum(balanced_reference.smooth_l1(p - t, BETA) for p, t in zip(*row)) for row in zip(deltas, targets)]
    probs = [reference.softmax(logits[i]) for i in positives]
    scores = [row[labels[i]] for row, i in zip(probs, positives)]
    added, loc, tc = harmonic_reference.detector_terms(
        [ce[i] for i in positives], bbox, list(map(reference_iou, deltas, targets)), scores, probs
    )
    return dict(loss_cls=(sum(ce) + added) / factor, loss_bbox=loc / factor, loss_tc=tc / factor)


@pytest.mark.parametrize('seed', [0, 1])
@pytest.mark.parametrize(
    ('blocks', 'naive', 'heads'),
    [
        (BALANCED_ODM, naive_balanced, [ODM]),
        ({**BALANCED_ODM, **BALANCED_ARM}, naive_balanced, [ODM, ARM]),
        (HARMONIC_ODM, naive_harmonic, [ODM]),
        ({**HARMONIC_ODM, **HARMONIC_ARM}, naive_harmonic, [ODM, ARM]),
    ],
    ids=['iou-balanced', 'iou-balanced with arm', 'harmonic', 'harmonic with arm'],
)
def test_losses_equal_naive_loops(blocks, naive, heads, seed):
    outs = fitting_outputs(seed)
    images, stock = images_of(outs), losses_of(build(), outs)
    expected = {key: value.item() for key, value in stock.items()}
    for head in heads:
        samples, factor, _ = mined_samples(images, head)
        found = {head[-1] + key: value for key, value in naive(samples, factor, head[1]).items()}
        # The case is worth something: what the balance changes is not lost beside the stock loss. (Eq. 4 keeps a sum.)
        changed = [key for key in found if naive is naive_harmonic or 'bbox' in key]
        assert all(found[key] != pytest.approx(expected.get(key, 0.0), rel=0.02) for key in changed)
        expected.update(found)
    losses = losses_of(build(**blocks), outs)
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize('scope', ['batch', 'image'])
@pytest.mark.parametrize('head', [ODM, ARM], ids=['odm', 'arm'])
def test_classification_weights_are_those_of_eq_4(head, scope):
    """d loss / d logit of the own class of a positive is w (p - 1) / N: the kept sum does not show the weights."""
    name, num_classes, *_, prefix = head
    kind = {'bbox_head': 'IoUBalancedRefineDetHead', 'arm_head': 'IoUBalancedDSSDHead'}[name]
    losses = dict(LOSSES, loss_cls=dict(LOSSES['loss_cls'], scope=scope))
    outs = fitting_outputs()
    images = images_of(outs)
    loss = losses_of(build(**{name: dict(type=kind, **losses)}), outs)[f'{prefix}loss_cls']
    maps = outs[name == 'bbox_head'][0]
    grads = torch.autograd.grad(loss, maps)
    _, factor, mined = mined_samples(images, head)
    found, sets = [], [[]]
    for number, (image, one) in enumerate(zip(images, mined)):
        logits, labels, deltas, targets = head[3]([image], [one])
        rows = reference.rows(grads, number, num_classes + 1)
        for place, i in enumerate(sorted(one.owner)):
            own = labels[place]
            found.append(rows[i][own] * factor / (reference.softmax(logits[place])[own] - 1))
            ce = balanced_reference.softmax_loss(logits[place], own)
            sets[-1].append((reference_iou(deltas[place], targets[place]), ce))
        sets += [[]] if scope == 'image' else []
    expected = [w for part in filter(None, sets) for w in balanced_reference.balanced_weights(*zip(*part), 1.5)]
    assert found == pytest.approx(expected, rel=1e-4)
    assert max(expected) - min(expected) > 0.2


@pytest.mark.parametrize('blocks', [BALANCED_ODM, HARMONIC_ODM], ids=['iou-balanced', 'harmonic'])
def test_the_mined_samples_are_those_of_the_stock_detector(blocks):
    outs = outputs()
    touched = []
    for model in (build(), build(**blocks)):
        grads = torch.autograd.grad(losses_of(model, outs)['loss_cls'], outs[1][0])
        touched.append([grad.ne(0) for grad in grads])
    _, _, mined = mined_samples(images_of(outs), ODM)
    assert sum(int(level.sum()) for level in touched[0]) == sum(4 * (C + 1) * len(one.owner) for one in mined)
    assert all(torch.equal(*pair) for pair in zip(*touched))


@pytest.mark.parametrize('blocks', [BALANCED_ODM, HARMONIC_ODM], ids=['iou-balanced', 'harmonic'])
def test_the_refinement_gets_no_gradient(blocks):
    outs = outputs()
    losses = losses_of(build(**blocks), outs)
    odm = sum(value for key, value in losses.items() if not key.startswith('arm_'))
    grads = torch.autograd.grad(odm, [*outs[0][0], *outs[0][1]], allow_unused=True)
    assert all(grad is None for grad in grads)

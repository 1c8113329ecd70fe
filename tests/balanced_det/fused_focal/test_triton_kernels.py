"""The Triton kernels: on a GPU where there is one, and in Triton's interpreter, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.utils import digit_version

from balanced_det.blocks import positive_inds
from balanced_det.fused_focal import focal_negatives, function, triton_kernels

# Triton looks at it while kernels are defined, its own too: whoever wants another choice needs another process.
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Of the sum, and of the largest gradient; the gradient is rounded to the dtype of the logits besides.
TOLERANCE = {torch.float64: 1e-13}
# A GPU rounds to the nearest (cvt.rn); the interpreter cuts bfloat16 off, which errs by twice as much.
ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8}


@pytest.fixture
def device():
    if not triton_kernels.available():
        pytest.skip('Triton is not installed: pip install triton')
    if INTERPRETED:
        return 'cpu'
    if not torch.cuda.is_available():
        pytest.skip('no GPU; test_in_the_interpreter runs this on the CPU')
    return 'cuda'


def made(n, num_classes, dtype=torch.float32, device='cpu'):
    """Logits around a detector's, labels with all kinds of background, weights some of which are 0."""
    logits = (4 * torch.randn(n, num_classes) - 2).to(device, dtype)
    labels = torch.randint(-1, num_classes + 1, (n,))
    weight = torch.rand(n) * (torch.rand(n) > 0.3)
    return logits, labels.to(device), weight.to(device)


def reference(logits, labels, weight, gamma, factor):
    """Sum and gradient in float64, the latter by autograd."""
    x = logits.detach().double().requires_grad_()
    loss = x.sigmoid() ** gamma * -F.logsigmoid(-x)
    if weight is not None:
        loss = loss * weight.double()[:, None]
    negative = labels[:, None] != torch.arange(logits.size(1), device=logits.device)
    total = factor * loss[negative].sum()
    return total.detach(), torch.autograd.grad(total, x)[0]


def check(logits, labels, weight, gamma, factor=0.75):
    """The sum alone, and with the gradient, which is returned."""
    expected, expected_grad = reference(logits, labels, weight, gamma, factor)
    tolerance = TOLERANCE.get(logits.dtype, 1e-6)
    arguments, options = (logits, labels, weight), dict(gamma=gamma, factor=factor)
    grad = torch.full_like(logits, torch.nan)
    for out in (None, grad):
        total = triton_kernels.negative_sum(*arguments, **options, grad=out)
        torch.testing.assert_close(total, expected, rtol=tolerance, atol=0)
    atol = tolerance * expected_grad.abs().max().item()
    torch.testing.assert_close(grad.double(), expected_grad, rtol=ROUNDING.get(grad.dtype, 0), atol=atol)
    return grad


@pytest.mark.parametrize('gamma', [0, 1, 2, 2.5])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_sum_and_gradient(device, dtype, gamma):
    check(*made(53, 80, dtype, device), gamma)


# C odd, a divisor of the block, larger than it; sizes of less than a block, of one exactly and of several and a part.
@pytest.mark.parametrize('shape', [(1, 1), (2500, 1), (700, 3), (64, 16), (205, 20), (40, 81), (3, 1203)], ids=str)
def test_shapes(device, shape):
    logits, labels, weight = made(*shape, device=device)
    labels[0] = shape[1]  # a single entry would be a positive, and all 0
    check(logits, labels, None, 2)
    check(logits, labels, weight + 0.1, 2)


def test_positive_entries_have_no_gradient(device):
    logits, labels, _ = made(30, 5, device=device)
    grad = check(logits, labels, None, 2)
    negative = labels[:, None] != torch.arange(5, device=device)
    assert torch.equal(grad != 0, negative)


@pytest.mark.parametrize('gamma', [0, 1, 2, 2.5])
def test_extreme_logits(device, gamma):
    logits = torch.tensor([[-1e4, -60.0, -20.0], [0.0, 20.0, 60.0], [1e4, 88.0, -88.0]], device=device)
    labels = torch.full((3,), 3, device=device)
    check(logits, labels, None, gamma)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_a_logit_of_0_where_the_series_is_longest(device, dtype):
    logits = torch.zeros(4, 3, dtype=dtype, device=device)
    check(logits, torch.full((4,), 3, device=device), None, 2)


def test_each_entry_is_accurate(device):
    # A loss that falls as e^3x, held against itself, not against the largest: a plain log(1 + e) loses a fifth of it.
    # exp(x) loses |x| roundings on a GPU, which reduces no argument.
    logits = torch.linspace(-15, 25, 400, device=device)[:, None]
    labels = torch.ones(400, dtype=torch.long, device=device)
    grad = torch.empty_like(logits)
    triton_kernels.negative_sum(logits, labels, None, gamma=2, factor=1.0, grad=grad)
    torch.testing.assert_close(grad.double(), reference(logits, labels, None, 2, 1.0)[1], rtol=5e-6, atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_factor_of_the_device(device, dtype):
    samples = made(53, 80, dtype, device)
    check(*samples, 2, factor=torch.tensor(1 / 3, dtype=torch.float64, device=device))
    check(*samples, 2, factor=torch.tensor(65536.0, device=device))


def test_labels_and_weights_with_gaps(device):
    logits, _, _ = made(40, 7, device=device)
    _, labels, weight = made(80, 7, device=device)
    check(logits, labels[::2], weight[::2], 2)


def test_no_rows(device):
    logits, labels, weight = made(0, 80, device=device)
    assert triton_kernels.negative_sum(logits, labels, weight, gamma=2, factor=0.75, grad=logits.clone()) == 0


@pytest.mark.parametrize('factor', [1.0, 0.3])
def test_scaling_in_place(device, factor):
    values = torch.randn(41, 31, device=device)
    expected = values * factor
    triton_kernels.scale_(values, torch.tensor(factor, device=device))
    assert torch.equal(values, expected)
    triton_kernels.scale_(values[:0], torch.tensor(factor, device=device))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('factor', [1.0, 3.0])
def test_the_differentiable_function(device, monkeypatch, dtype, factor):
    monkeypatch.setattr(function, '_backend', lambda blocks: triton_kernels)  # in the interpreter too
    logits, labels, weight = made(60, 20, dtype, device)
    inds = positive_inds(labels, 20)
    blocks = [logits[:25].clone().requires_grad_(), logits[25:].clone().requires_grad_()]
    total, entries = focal_negatives(blocks, labels, inds, weight)
    assert torch.equal(entries, logits[inds, labels[inds]].to(entries.dtype))
    (factor * total + entries.sum()).backward(retain_graph=True)
    once = [block.grad.clone() for block in blocks]
    (factor * total + entries.sum()).backward()  # by another way: the first pass has used its gradient up
    value, grad = reference(logits, labels, weight, 2.0, 0.75)
    expected = (factor * grad).index_put((inds, labels[inds]), torch.ones(len(inds), dtype=grad.dtype, device=device))
    torch.testing.assert_close(total.double(), value, rtol=TOLERANCE.get(dtype, 1e-6), atol=0)
    atol = 1e-6 * expected.abs().max().item()
    for mine, twice in ((once, 1), ([block.grad for block in blocks], 2)):
        torch.testing.assert_close(
            torch.cat(mine).double(), twice * expected, rtol=2 * ROUNDING.get(dtype, 0), atol=atol
        )


def test_more_entries_than_32_bits_count(device):
    if device != 'cuda' or torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip('needs a GPU with 12 GiB of free memory')
    n = 2**31 // 80 + 1000
    logits = torch.full((n, 80), -1e4, dtype=torch.bfloat16, device=device)
    logits[-1] = 0
    labels = torch.full((n,), 79, device=device)
    grad = torch.empty_like(logits)
    total = triton_kernels.negative_sum(logits, labels, None, gamma=2, factor=1.0, grad=grad)
    at_zero, slope = reference(logits[-1:], labels[-1:], None, 2, 1.0)
    torch.testing.assert_close(total, at_zero, rtol=1e-6, atol=0)
    assert torch.equal(grad[-1], slope[0].bfloat16())
    assert grad.count_nonzero() == 79


def test_refused_tensors():
    logits, labels, weight = made(6, 4)
    options = dict(gamma=2, factor=1.0)
    with pytest.raises(ValueError, match=r'strides \(1, 6\).*contiguous\(\)'):
        triton_kernels.negative_sum(logits.t().contiguous().t(), labels, weight, **options)
    with pytest.raises(ValueError, match=r'logits must be \(n, C\).*not \(24,\)'):
        triton_kernels.negative_sum(logits.flatten(), labels, weight, **options)
    with pytest.raises(ValueError, match=r'labels must be \(6,\).*not \(5,\)'):
        triton_kernels.negative_sum(logits, labels[1:], weight, **options)
    with pytest.raises(ValueError, match=r'weight must be \(6,\).*not \(6, 1\)'):
        triton_kernels.negative_sum(logits, labels, weight[:, None], **options)
    for out in (logits[1:], logits.double(), logits.t().contiguous().t()):
        with pytest.raises(ValueError, match='the gradient must be contiguous'):
            triton_kernels.negative_sum(logits, labels, weight, **options, grad=out)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_triton_that_works_is_used(device, dtype):
    assert triton_kernels.works_on(torch.device(device), dtype)


def test_triton_that_fails_is_not_used(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError('Failed to find C compiler')

    monkeypatch.setitem(sys.modules, 'triton', SimpleNamespace(__version__='3.2.0'))
    monkeypatch.setattr(triton_kernels, 'available', lambda: True)
    monkeypatch.setattr(triton_kernels, 'negative_sum', fail)
    monkeypatch.setattr(triton_kernels, 'works_on', cache(triton_kernels.works_on.__wrapped__))
    said = []
    monkeypatch.setattr(triton_kernels, 'print_log', lambda message, **kwargs: said.append(message))
    cpu = torch.device('cpu')
    for _ in range(2):  # tried once, said once
        assert not triton_kernels.works_on(cpu, torch.float32)
    assert len(said) == 1
    assert 'Failed to find C compiler' in said[0]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason='this is the interpreter')
def test_in_the_interpreter(repo_root):
    triton = pytest.importorskip('triton', reason='Triton is not installed: pip install triton')
    if digit_version(triton.__version__) < digit_version('3.2'):
        pytest.skip(
            f"the interpreter of Triton {triton.__version__} does not run the kernel: pip install 'triton>=3.2'"
        )
    variables = dict(os.environ, TRITON_INTERPRET='1', PYTEST_ADDOPTS='')
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:xdist', '-p', 'no:cacheprovider', __file__]
    done = subprocess.run(command, cwd=repo_root, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'no GPU;' not in done.stdout


@pytest.mark.skipif(INTERPRETED, reason='the same in the interpreter')
def test_importing_does_not_import_triton(repo_root):
    code = (
        'import sys, balanced_det, balanced_det.fused_focal.triton_kernels as kernels; kernels.available(); '
        'sys.exit("Triton was imported" if "triton" in sys.modules else 0)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

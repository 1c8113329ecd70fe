"""The pass over the negatives on a GPU, as a Triton kernel; Triton is imported, and compiles, on the first call.

The functions are those of :mod:`balanced_det.fused_focal.chunked`. They start kernels and wait for none.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from importlib.util import find_spec

import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version
from torch import Tensor

MINIMUM = '3.2'  # version of Triton in which the kernels are tested

# Entries of a program, eight for each thread: two vector loads of float32 are under way at once, in about 40 registers.
BLOCK, NUM_WARPS = 1024, 4
# Entries that share the look-up of their row's label and weight, at most.
MAX_GROUP = 16


def available() -> bool:
    """Whether Triton is installed; says so without importing it."""
    return find_spec('triton') is not None


@cache
def works_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run for logits of a type on a GPU; tried once.

    Triton wants a C compiler, and does not support every GPU. Where it fails, a warning says why.
    """
    if not available():
        return False
    try:
        import triton

        if digit_version(triton.__version__) < digit_version(MINIMUM):
            return False
        logits = torch.zeros(2, MAX_GROUP, device=device, dtype=dtype)
        weight = torch.ones(2, device=device)
        total = negative_sum(logits, weight.long(), weight, gamma=2.0, factor=1.0, grad=logits.clone())
        scale_(torch.ones(1, device=device), total.float())
        total.item()  # waits, so that what fails has failed
    except Exception as error:  # of Triton, of its compiler or of the driver: none ends a training
        print_log(
            f'Triton does not run on {device} ({type(error).__name__}: {error}): the focal loss is computed unfused, '
            'with the same values in more time and memory',
            logger='current',
            level=logging.WARNING,
        )
        return False
    return True


def negative_sum(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    *,
    gamma: float,
    factor: float | Tensor,
    grad: Tensor | None = None,
) -> Tensor:
    r"""Sum of the focal loss of all entries but the positive ones; the same at each call.

    .. math:: factor \sum_{c \ne y_i} w_i \, p_{ic}^\gamma \, (-\log(1 - p_{ic})), \quad p = \sigma(x)

    Args:
        logits: Shape (n, C), contiguous. Half precision is computed in float32.
        labels: Shape (n,); the entry (i, y_i) is left out where y_i is in [0, C).
        weight: Shape (n,), or None.
        gamma: Focusing exponent, at least 0. Each value compiles a kernel of its own.
        factor: Factor of the sum, a number or a scalar.
        grad: Shape (n, C), contiguous, is filled with the gradient by the logits in the same pass; 0 at the positive
            entries. None: no gradient.

    Returns:
        A scalar, float64.

    Raises:
        ValueError: ``logits`` or ``grad`` is not contiguous, or the shapes do not fit.
    """
    sums = logits.new_empty(-(-logits.numel() // BLOCK), dtype=_compute_dtype(logits))
    _launch(logits, labels, weight, gamma, factor, sums, grad)
    return sums.sum(dtype=torch.float64) * factor


def scale_(values: Tensor, factor: Tensor) -> None:
    """Multiply by a scalar in place; where that is 1, as it mostly is, nothing is read, and the host does not ask."""
    if not values.numel():
        return
    from balanced_det.fused_focal.triton_jit import scale_block

    with torch.cuda.device_of(values):
        scale_block[(-(-values.numel() // BLOCK),)](values, factor.contiguous(), values.numel(), BLOCK=BLOCK)


def _compute_dtype(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _launch(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    gamma: float,
    factor: float | Tensor,
    sums: Tensor,
    grad: Tensor | None,
) -> None:
    _check(logits, labels, weight, grad)
    if not logits.numel():
        return
    from balanced_det.fused_focal.triton_jit import negative_block

    scale = None
    if grad is not None:
        # A kernel takes a number as float32, a scalar of the GPU as it is; to fill one the host waits for nothing.
        scale = logits.new_ones((), dtype=_compute_dtype(logits)).mul_(factor)
    num_classes = logits.size(1)
    with torch.cuda.device_of(logits):  # Triton starts kernels on the current device
        negative_block[(-(-logits.numel() // BLOCK),)](
            logits,
            labels.contiguous(),
            None if weight is None else weight.contiguous(),
            scale,
            sums,
            grad,
            logits.numel(),
            C=num_classes,
            GAMMA=float(gamma),
            BLOCK=BLOCK,
            GROUP=math.gcd(num_classes, MAX_GROUP),
            num_warps=NUM_WARPS,
            enable_fp_fusion=True,  # a product and a sum in one instruction; no longer the default in newer versions
        )


def _check(logits: Tensor, labels: Tensor, weight: Tensor | None, grad: Tensor | None) -> None:
    """Refuse what the kernel would read or write beside its tensors."""
    if logits.dim() != 2 or not logits.is_contiguous():
        raise ValueError(
            f'the logits must be (n, C) and contiguous, not {tuple(logits.shape)} with strides {logits.stride()}: '
            'call .contiguous() on them'
        )
    for name, tensor in (('labels', labels), ('weight', weight)):
        if tensor is not None and tensor.shape != logits.shape[:1]:
            raise ValueError(f'{name} must be ({len(logits)},), one for each row of logits, not {tuple(tensor.shape)}')
    if grad is not None and (grad.shape != logits.shape or grad.dtype != logits.dtype or not grad.is_contiguous()):
        raise ValueError(
            f'the gradient must be contiguous, {tuple(logits.shape)} and {logits.dtype} as the logits, not '
            f'{tuple(grad.shape)} and {grad.dtype} with strides {grad.stride()}: make it by torch.empty_like(logits)'
        )

"""The kernel of :mod:`balanced_det.fused_focal.triton_kernels`, which imports this module on its first call."""

# mypy: disallow-untyped-defs=False
# Triton reads the annotations of a kernel and wants none but `tl.constexpr`.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def negative_block(
    logits,
    labels,
    weight,
    factor,
    sums,
    grad,
    total,
    C: tl.constexpr,
    GAMMA: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Sum of the loss of BLOCK entries that follow one another, to ``sums``, and their gradient, to ``grad``.

    ``weight`` may be None, and so may ``grad``; ``factor`` is that of the gradient, the sum goes without one.
    The entries come as a tile of groups of GROUP, a divisor of C and of BLOCK: a group lies in one row, so that its
    label, weight and bounds are looked up once.
    """
    COMPUTE: tl.constexpr = tl.float64 if logits.dtype.element_ty == tl.float64 else tl.float32
    # Up to here in 64 bits: n * C may exceed 2**31. What is counted from here fits 32 bits, in which dividing is cheap.
    start = tl.program_id(0).to(tl.int64) * BLOCK
    first_row = start // C
    group = tl.arange(0, BLOCK // GROUP)[:, None] * GROUP
    lane = group + tl.arange(0, GROUP)[None, :]
    inside = group < tl.minimum(total - start, BLOCK).to(tl.int32)
    entry = (start - first_row * C).to(tl.int32) + group  # the first of each group, from the beginning of first_row
    row = entry // C
    label = tl.load(labels + first_row + row, mask=inside).to(tl.int32)
    negative = inside & (lane - group != label - (entry - row * C))
    x = tl.load(logits + start + lane, mask=inside).to(COMPUTE)
    prob, complement, softplus, focus = focal_terms(x, GAMMA)
    if weight is not None:
        focus *= tl.load(weight + first_row + row, mask=inside).to(COMPUTE)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(negative, focus * softplus, 0.0)))
    if grad is not None:
        slope = tl.load(factor) * focus * (GAMMA * complement * softplus + prob)
        tl.store(grad + start + lane, tl.where(negative, slope, 0.0).to(grad.dtype.element_ty), mask=inside)


@triton.jit
def scale_block(values, factor, total, BLOCK: tl.constexpr):
    """Multiply BLOCK entries by ``factor``; touches none where it is 1."""
    by = tl.load(factor)
    if by != 1.0:
        entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = entry < total
        tl.store(values + entry, tl.load(values + entry, mask=inside) * by, mask=inside)


@triton.jit
def focal_terms(x, GAMMA: tl.constexpr):
    """Returns p = sigmoid(x), 1 - p, softplus(x) and p ** GAMMA; no step cancels or overflows."""
    small = tl.exp(-tl.abs(x))
    larger = 1.0 / (1.0 + small)
    smaller = small * larger
    prob = tl.where(x >= 0, larger, smaller)
    complement = tl.where(x >= 0, smaller, larger)
    log = log1p(small)
    # The power by log p, which is finite where p underflows: GAMMA = 0 gives 1 there too.
    focus = prob * prob if GAMMA == 2 else tl.exp(GAMMA * (tl.minimum(x, 0.0) - log))
    return prob, complement, tl.maximum(x, 0.0) + log, focus


@triton.jit
def log1p(e):
    """log(1 + e), e in [0, 1], with a relative error of some 1e-7 (float64: 1e-16) down to the smallest e.

    Triton has no log1p on all its backends, and log(1 + e) loses what the sum 1 + e rounds off: all of a small e. This
    is the series 2 artanh(s) = 2 (s + s^3 / 3 + s^5 / 5 + ...), s = e / (2 + e) <= 1/3, cut where the rest is below
    the rounding. It takes fewer instructions than a logarithm and its correction.
    """
    TERMS: tl.constexpr = 16 if e.dtype == tl.float64 else 7
    s = e / (2.0 + e)
    square = s * s
    series = tl.full(s.shape, 2.0 / (2 * TERMS - 1), s.dtype)
    for k in tl.static_range(1, TERMS):
        series = series * square + 2.0 / (2 * (TERMS - k) - 1)
    return s * series

"""Arguments of the losses; an error names the config key."""

from __future__ import annotations

import math


def exponent(name: str, value: float, key: str) -> float:
    """A finite number of at least 0, or a ValueError."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(f'{name}={value!r} (config key {key}) must be a finite number of at least 0')
    return float(value)


def positive(name: str, value: float) -> float:
    """A finite number above 0, or a ValueError."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise ValueError(f'{name}={value!r} (config key loss_bbox.{name}) must be a finite number above 0')
    return float(value)

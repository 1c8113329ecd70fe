"""Fixtures of the tests of balanced_det."""

from __future__ import annotations

import pytest

from balanced_det.evaluation.backends import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    """Each backend of the metrics; one that is not installed is skipped."""
    pytest.importorskip(request.param)
    return request.param

"""How often the host waits for a GPU, counted on any device.

On a CPU nothing waits; what is counted there is what would on a GPU.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
#: The number or the shape of their results depends on values.
WAITING = {
    aten._local_scalar_dense,  # item(), bool(), int(), float()
    aten.nonzero,
    aten.masked_select,
    aten.bincount,
    aten._unique,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.equal,
}
#: What torch says of each wait; that this is a prototype it says once, in other words.
CUDA_WAIT = 'called a synchronizing CUDA operation'
CPU_CALLS = {Tensor.tolist, Tensor.cpu, F.one_hot}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class SyncCounter(TorchDispatchMode):
    """Counts the operations within its context for which the host waits for the GPU.

    These are what takes a value to the host (``item``, ``tolist``, ``if tensor``), what makes a shape of values
    (``nonzero``, ``unique``, a mask as an index), and copies to the host. Copies to the GPU are not counted: on a CPU
    they cannot be told from others. Neither is ``one_hot``, which has its number of classes in mmdet.

    Args:
        ignored: A module's file; what its functions call is not counted.

    Attributes:
        calls: Operation -> how often the host waited for it.
    """

    def __init__(self, ignored: str | None = None) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.ignored = ignored
        self._by_call = _CallCounter(self)

    def __enter__(self) -> SyncCounter:
        self._by_call.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self._by_call.__exit__(*args)

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence = (), kwargs: dict | None = None) -> Any:
        """Count a call of an operator, then let it go on."""
        result = func(*args, **(kwargs or {}))
        if _waits(func.overloadpacket, args, result):
            self.add(str(func.overloadpacket))
        return result

    def add(self, operation: str) -> None:
        """Count an operation, unless what calls it is ignored."""
        if not (self.ignored and self.ignored in _calling_files()):
            self.calls[operation] += 1


class _CallCounter(TorchFunctionMode):
    """Corrects a count where operators alone do not tell: on a CPU some calls have none, and one has too many."""

    def __init__(self, counter: SyncCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Sequence = (), kwargs: dict | None = None) -> Any:
        before = self.counter.calls.copy()
        result = func(*args, **(kwargs or {}))
        if func in CPU_CALLS and args[0].device.type == 'cpu':
            self.counter.calls = before
            if func is not F.one_hot:  # which checks the labels on a CPU alone
                self.counter.add(func.__name__)
        return result


def count_syncs(step: Callable[[], object], ignored: str | None = None) -> Counter[str]:
    """Operations of a step for which the host waits, see :class:`SyncCounter`."""
    with SyncCounter(ignored) as counter:
        step()
    return counter.calls


def count_cuda_syncs(step: Callable[[], object]) -> int:
    """How often CUDA says that the host waits for it; copies to the GPU are among these."""
    with _sync_warnings() as caught:
        step()
    return sum(CUDA_WAIT in str(warning.message) for warning in caught)


def _calling_files() -> Iterator[str]:
    """Files of the functions that are running, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame:
        yield frame.f_code.co_filename
        frame = frame.f_back


def _waits(operator: Any, args: Sequence, result: Any) -> bool:
    if operator in INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]) and (
            # A mask that gets one number is a masked_fill.
            operator is aten.index or args[2].numel() != 1
        )
    if operator in (aten._to_copy, aten.copy_):
        source = args[0] if operator is aten._to_copy else args[1]
        return source.device.type != 'cpu' and result.device.type == 'cpu'
    return operator in WAITING


@contextmanager
def _sync_warnings() -> Iterator[list[warnings.WarningMessage]]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode(before)

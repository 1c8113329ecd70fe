"""A stock mmdet config in, the same config with balanced losses out: in memory, or as a small file that inherits.

Both come from one plan, a :class:`Swap`, which :func:`plan_swap` makes from the table :data:`METHODS`.
"""

from balanced_det.swap.detector import SwapError
from balanced_det.swap.files import SwappedConfig, find_config, swap_losses
from balanced_det.swap.methods import METHODS, Method
from balanced_det.swap.plan import LOSSES, Swap, plan_swap, swap_config

__all__ = [
    'LOSSES',
    'METHODS',
    'Method',
    'Swap',
    'SwapError',
    'SwappedConfig',
    'find_config',
    'plan_swap',
    'swap_config',
    'swap_losses',
]

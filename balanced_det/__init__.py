"""Shared ground of the IoU-balanced and the Harmonic losses; knows nothing of either.

Importing it checks the installed mmdet, lets torch read mmengine's checkpoints and registers the components.
"""

from balanced_det import compat

__version__ = '0.1.0'

compat.installed_line()
compat.register_checkpoint_globals()

# After the check: these import mmdet, whose own errors do not say what to install.
from balanced_det import datasets, evaluation, hooks  # noqa: E402

__all__ = ['__version__', 'compat', 'datasets', 'evaluation', 'hooks']

"""Hooks that mmengine's runner calls during a training."""

from balanced_det.hooks.data_check import DataCheckHook

__all__ = ['DataCheckHook']

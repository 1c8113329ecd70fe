"""Hooks that mmengine's runner calls during a training."""

from balanced_det.hooks.consistency import ConsistencyHook
from balanced_det.hooks.data_check import DataCheckHook
from balanced_det.hooks.loc_weight import LocWeightCalibrationHook

__all__ = ['ConsistencyHook', 'DataCheckHook', 'LocWeightCalibrationHook']

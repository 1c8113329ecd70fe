"""Runtime of every config here: mmdet's defaults, and the only `custom_imports`."""
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['iou_balanced', 'harmonic'], allow_failed_imports=False)
custom_hooks = [dict(type='DataCheckHook')]

"""Pascal VOC 07+12 in `data/VOCdevkit`, three times an epoch as in mmdet, for schedules that count epochs.

mmdet's `bbox_min_size=32`, which takes small boxes out of the training, is younger than the papers and left out.
"""
_base_ = 'mmdet::_base_/datasets/voc0712.py'

_base_.train_dataloader.dataset.dataset.datasets[0].filter_cfg = dict(filter_empty_gt=True, min_size=32)
_base_.train_dataloader.dataset.dataset.datasets[1].filter_cfg = dict(filter_empty_gt=True, min_size=32)
val_evaluator = dict(_delete_=True, type='LocalizationVOCMetric')
test_evaluator = val_evaluator

"""Pascal VOC 07+12 in `data/VOCdevkit`, three times an epoch as in mmdet, for schedules that count epochs.

mmdet's `bbox_min_size=32`, which takes small boxes out of the training, is younger than the papers and left out.
"""
_base_ = 'mmdet::_base_/datasets/voc0712.py'

# A box of zero size makes the losses of stock heads infinite; mmdet's COCO reader drops such boxes, VOC's does not.
_base_.train_pipeline.insert(2, dict(type='FilterAnnotations', min_gt_bbox_wh=(0, 0)))
_base_.train_dataloader.dataset.dataset.datasets[0].pipeline = _base_.train_pipeline
_base_.train_dataloader.dataset.dataset.datasets[1].pipeline = _base_.train_pipeline
_base_.train_dataloader.dataset.dataset.datasets[0].filter_cfg = dict(filter_empty_gt=True, min_size=32)
_base_.train_dataloader.dataset.dataset.datasets[1].filter_cfg = dict(filter_empty_gt=True, min_size=32)
val_evaluator = dict(_delete_=True, type='LocalizationVOCMetric')
test_evaluator = val_evaluator

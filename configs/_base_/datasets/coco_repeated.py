"""COCO 2017, five times an epoch and eight images a GPU, as in mmdet's ssd300_coco."""
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

train_dataloader = dict(
    batch_size=8, batch_sampler=None,
    dataset=dict(_delete_=True, type='RepeatDataset', times=5, dataset=_base_.train_dataloader.dataset))
val_dataloader = dict(batch_size=8)
test_dataloader = val_dataloader
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

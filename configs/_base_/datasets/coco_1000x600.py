"""COCO 2017 at 1000 x 600, six images a GPU: the ablations of paper A."""
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

_base_.train_pipeline[2].scale = (1000, 600)
_base_.test_pipeline[1].scale = (1000, 600)
train_dataloader = dict(batch_size=6, num_workers=6, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator

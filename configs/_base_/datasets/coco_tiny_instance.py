"""COCO-tiny with masks."""
_base_ = './coco_tiny.py'

_base_.train_pipeline[1].with_mask = True
_base_.train_pipeline[1].poly2mask = False
_base_.test_pipeline[2].with_mask = True
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator

# Digit scenes: a made set from real parts (balanced_det/datasets/digit_scenes.py).
# `python tools/make_digit_scenes.py` writes it; nothing is downloaded.
# Ten classes: make the set with `--classes 10` in another root, set `data_root`, and give all three datasets
# metainfo=dict(classes=tuple('0123456789')).
dataset_type = 'DigitScenesDataset'
data_root = 'data/digit_scenes/'
backend_args = None

# The images have 128 x 128 already; Resize also writes the scale_factor that prediction asks for.
# No RandomFlip: digits are not mirror symmetric, a flipped 2 would still be labelled 2.
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
# Loading a small PNG takes a fraction of a millisecond: worker processes would only take the two cores that the
# demo trains on.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
        backend_args=backend_args))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='LocalizationCocoMetric',
    ann_file=data_root + 'annotations/val.json',
    metric='bbox',
    backend_args=backend_args)
test_evaluator = val_evaluator

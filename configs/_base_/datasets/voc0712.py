"""Pascal VOC 07+12 in `data/VOCdevkit`, the sets of mmdet's ssd300_voc0712, for schedules that count iterations."""
_base_ = 'mmdet::_base_/datasets/voc0712.py'

voc_set = dict(
    type='VOCDataset', data_root=_base_.data_root, filter_cfg=dict(filter_empty_gt=True, min_size=32),
    pipeline=_base_.train_pipeline)
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    sampler=dict(type='InfiniteSampler'),
    batch_sampler=None,
    dataset=dict(
        _delete_=True, type='ConcatDataset', ignore_keys=['dataset_type'],
        datasets=[
            dict(
                voc_set, ann_file='VOC2007/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2007/')),
            dict(
                voc_set, ann_file='VOC2012/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2012/')),
        ]))
val_evaluator = dict(_delete_=True, type='LocalizationVOCMetric')
test_evaluator = val_evaluator

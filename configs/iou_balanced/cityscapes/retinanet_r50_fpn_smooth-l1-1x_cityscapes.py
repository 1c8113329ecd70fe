"""Paper A, Table 6, row 1: RetinaNet-R50 on Cityscapes, 2048 x 800 to 2048 x 1024, from that on COCO."""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn_smooth-l1.py',
    'mmdet::_base_/datasets/cityscapes_detection.py',
    '../../_base_/schedules/sgd_1x_cityscapes.py',
    '../../_base_/runtime.py',
]
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=8))
val_evaluator = dict(type='LocalizationCocoMetric')
test_evaluator = val_evaluator
# Another file: --cfg-options load_from=PATH. The scores of COCO's 80 classes do not fit and are learnt anew.
load_from = 'work_dirs/retinanet_r50_fpn_smooth-l1-1x_coco/epoch_12.pth'

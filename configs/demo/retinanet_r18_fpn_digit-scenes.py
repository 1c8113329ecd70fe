"""The demo's baseline: a small RetinaNet with mmdet's own losses, trained from scratch on digit scenes."""
_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/digit_scenes.py',
    '../_base_/schedules/adamw_1500-iter.py',
    '../_base_/runtime.py',
]
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=250, max_keep_ckpts=1), logger=dict(interval=50))
log_processor = dict(by_epoch=False)

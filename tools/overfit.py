"""Over-fits a detector to a few images, from scratch: what cannot learn eight images by heart has a fault."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from balanced_det.evaluation.anchors import anchor_iou
from balanced_det.preflight import ConfigProblem, check_config, load_config

AP50 = 'pascal_voc/bbox_mAP_50'


def main() -> None:
    args = parse_args()
    try:
        cfg = load_config(args.config, args.cfg_options)
        check_config(cfg)
    except ConfigProblem as problem:
        sys.exit(f'{args.config}: {problem}')
    runner = Runner.from_cfg(overfit_config(cfg, args))
    runner.train()
    ap50 = runner.message_hub.get_scalar(f'val/{AP50}').current()
    print(f'AP50 {ap50:.3f} on its {args.images} images after {runner.iter} iterations')
    if hasattr(runner.model, 'with_refined'):
        report_anchors(runner)
    if ap50 < args.target:
        sys.exit(f'AP50 is below the target of {args.target}: give it more --epochs, or look for the fault')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a one-stage detector')
    parser.add_argument('--images', type=int, default=8, help='the first images of the training set (default: 8)')
    parser.add_argument('--target', type=float, default=0.9, help='AP50 at which to stop (default: 0.9)')
    parser.add_argument('--epochs', type=int, default=100, help='at most so many (default: 100)')
    parser.add_argument('--interval', type=int, default=5, help='epochs between two evaluations (default: 5)')
    parser.add_argument('--batch-size', type=int, default=2, help='default: 2')
    parser.add_argument('--lr', type=float, default=5e-4, help='of AdamW (default: 5e-4)')
    parser.add_argument('--work-dir', help='default: work_dirs/overfit/CONFIG_NAME')
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint in the work dir')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value, as in tools/train.py')
    args = parser.parse_args()
    name = os.path.splitext(os.path.basename(args.config))[0]
    args.work_dir = args.work_dir or os.path.join('work_dirs', 'overfit', name)
    return args


def overfit_config(cfg: Config, args: argparse.Namespace) -> Config:
    """Train and evaluate on the same images, without augmentation, from random weights."""
    cfg.work_dir, cfg.resume = args.work_dir, args.resume
    cfg.model.backbone.update(init_cfg=None)
    if cfg.model.backbone.type == 'ResNet':
        cfg.model.backbone.update(frozen_stages=-1, norm_eval=False)
    source = cfg.train_dataloader.dataset
    if 'ann_file' not in source:
        sys.exit(f'train_dataloader.dataset is a {source.type}: name one set of it, for example with a config on BCCD')
    source.update(indices=args.images, pipeline=without_augmentation(cfg.val_dataloader.dataset.pipeline))
    sampler = dict(type='DefaultSampler', shuffle=True)
    loader = dict(num_workers=0, persistent_workers=False, batch_sampler=None, sampler=sampler)
    cfg.train_dataloader.update(loader, batch_size=args.batch_size)
    cfg.val_dataloader.update(loader, batch_size=args.batch_size)
    # Not in test_mode, which would filter no images and so take others.
    cfg.val_dataloader.dataset = dict(source, pipeline=cfg.val_dataloader.dataset.pipeline)
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.val_evaluator = dict(type='LocalizationVOCMetric')  # of the images that come, not of all in an annotation file
    cfg.optim_wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=args.lr, weight_decay=0.0), clip_grad=dict(max_norm=10.0)
    )
    steps = max(args.images // args.batch_size, 1)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5 * steps)]
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=args.epochs, val_interval=args.interval)
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=args.interval, max_keep_ckpts=1)
    cfg.default_hooks.logger.update(interval=steps)
    cfg.log_processor.update(by_epoch=True)
    stop = dict(type='EarlyStoppingHook', monitor=AP50, rule='greater', patience=args.epochs)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(stop, stopping_threshold=args.target)]
    cfg.env_cfg.cudnn_benchmark = False
    return cfg


def without_augmentation(test_pipeline: list[dict]) -> list[dict]:
    """A test pipeline for training: the boxes are loaded before the image is resized, so that they are resized too."""
    boxes = [step for step in test_pipeline if step['type'] == 'LoadAnnotations']
    load, *others = [step for step in test_pipeline if step['type'] != 'LoadAnnotations']
    return [load, *boxes, dict(type='FilterAnnotations', min_gt_bbox_wh=(0, 0)), *others]


def report_anchors(runner: Runner) -> None:
    """Print how close RefineDet's anchors come to the ground truth, before and after it has moved them."""
    iou = anchor_iou(runner.model, runner.train_dataloader)
    print(f'IoU of matched anchors {iou.anchors:.3f}, refined {iou.refined:.3f}')
    print(f'IoU of the best anchor of a box {iou.best_anchors:.3f}, refined {iou.best_refined:.3f}')


if __name__ == '__main__':
    main()

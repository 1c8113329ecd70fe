"""The smallest trainings that a config can have: two images, one iteration, one validation; few channels if asked."""

from __future__ import annotations

from mmengine.config import ConfigDict
from mmengine.runner import Runner

from balanced_det.preflight import walk

WIDTHS = ('in_channels', 'out_channels', 'channels', 'planes', 'prediction_planes', 'feat_channels')


def narrow(model):
    """The block of a detector on a ResNet with an eighth of the channels in every map between its layers."""

    def changed(node):
        if isinstance(node, dict):
            return ConfigDict({key: divided(value) if key in WIDTHS else changed(value) for key, value in node.items()})
        return type(node)(map(changed, node)) if isinstance(node, (list, tuple)) else node

    model = changed(model)
    model.backbone.update(base_channels=8, stem_channels=8)
    return model


def shrink(pipelines, factor=8):
    """Divide the scales of some pipelines, in place; a fixed input that the model is made for stays as it is."""
    resizes = [step for _, step in walk(pipelines, '') if 'Resize' in str(step.get('type')) and step.get('keep_ratio')]
    for step in {id(step): step for step in resizes}.values():  # the parts of a set may share their pipeline
        step.scale = divided(step.scale, factor)


def divided(value, factor=8):
    """A whole number, or all numbers of a nested list."""
    if isinstance(value, (list, tuple)):
        return type(value)(divided(part, factor) for part in value)
    return value // factor


def quick_runner(cfg, work_dir, images=2, validate=True):
    """A runner for one batch of training and one of validation, without pretrained weights.

    Args:
        cfg: Of a detector; changed in place.
        work_dir: Where it writes its log.
        images: In each of the two batches; None: as many as the sets have, in batches of two.
        validate: Whether the training validates at its end.
    """
    cfg.work_dir = str(work_dir)
    for _, block in walk(cfg.model, 'model'):
        if (block.get('init_cfg') or {}).get('type') == 'Pretrained':
            block.init_cfg = None
        if 'score_thr' in block:
            block.score_thr = 0.001  # untrained scores are low
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=images or 2, num_workers=0, persistent_workers=False)
        if images:
            loader.dataset.indices = images
        for _, block in walk(loader.dataset, ''):
            if block.get('type') == 'RepeatDataset':
                block.times = 1
    iterations = 'max_iters' in cfg.train_cfg
    cfg.train_cfg.update({'max_iters' if iterations else 'max_epochs': 1, 'val_interval': 1})
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.logger.interval = 1
    cfg.randomness = dict(seed=0)
    cfg.experiment_name = cfg.visualizer.name = f'{work_dir.parent.name}_{work_dir.name}'  # one of many in a process
    return Runner.from_cfg(cfg)


def logged(runner):
    """Last value of each loss and metric."""
    return {name: value.current() for name, value in runner.message_hub.log_scalars.items()}


def expected_losses(model):
    """Names of the losses that a training of the model's block logs."""
    names = {'loss_cls', 'loss_bbox'}
    if model.type == 'RefineDet':
        names |= {'arm_loss_cls', 'arm_loss_bbox'}
    if 'rpn_head' in model:
        names |= {'loss_rpn_cls', 'loss_rpn_bbox'}
    roi_head = model.get('roi_head') or {}
    if roi_head.get('mask_head'):
        names.add('loss_mask')
    joint = (model.get('bbox_head') or roi_head['bbox_head']).get('loss_joint')
    return names | ({'loss_tc'} if joint and joint.get('tc', True) else set())

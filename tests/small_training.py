"""The smallest trainings that a config can have: few channels, two images, one iteration, one validation."""

from __future__ import annotations

from mmengine.config import ConfigDict
from mmengine.runner import Runner

WIDTHS = ('in_channels', 'out_channels', 'channels', 'planes', 'prediction_planes', 'feat_channels')


def narrow(model):
    """The block of a detector on a ResNet with an eighth of the channels in every map between its layers."""

    def divided(value):
        return [divided(part) for part in value] if isinstance(value, (list, tuple)) else value // 8

    def changed(node):
        if isinstance(node, dict):
            return ConfigDict({key: divided(value) if key in WIDTHS else changed(value) for key, value in node.items()})
        return type(node)(map(changed, node)) if isinstance(node, (list, tuple)) else node

    model = changed(model)
    model.backbone.update(base_channels=8, stem_channels=8)
    return model


def quick_runner(cfg, work_dir, images=2):
    """A runner for one batch of training and one of validation, without pretrained weights.

    Args:
        cfg: Of an SSD, DSSD or RefineDet; changed in place.
        work_dir: Where it writes its log.
        images: In each of the two batches; None: as many as the sets have, in batches of two.
    """
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg.score_thr = 0.001  # untrained scores are low
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=images or 2, num_workers=0, persistent_workers=False)
        if images:
            loader.dataset.indices = images
    iterations = 'max_iters' in cfg.train_cfg
    cfg.train_cfg.update({'max_iters' if iterations else 'max_epochs': 1, 'val_interval': 1})
    cfg.default_hooks.logger.interval = 1
    cfg.randomness = dict(seed=0)
    cfg.experiment_name = cfg.visualizer.name = f'{work_dir.parent.name}_{work_dir.name}'  # one of many in a process
    return Runner.from_cfg(cfg)


def logged(runner):
    """Last value of each loss and metric."""
    return {name: value.current() for name, value in runner.message_hub.log_scalars.items()}

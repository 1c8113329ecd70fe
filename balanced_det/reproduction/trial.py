"""A row's config on another data set, with a shorter schedule or a smaller input: a trial, never a reproduction.

The config of a trial inherits from the row's and records in ``trial = dict(...)`` what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from balanced_det.preflight import leaf_datasets, walk
from balanced_det.reproduction.results import training_length
from balanced_det.reproduction.trial_data import Splits, TrialError

LOADERS = ('train', 'val', 'test')
CHECKPOINTS = 5  # of a training that is given in iterations
LOW_SCORE = 0.001


@dataclass(frozen=True)
class Trial:
    """What a trial changes; None and False leave the row's config as it is.

    Attributes:
        data_root: A data set in the layout of COCO or of VOC.
        max_epochs: Epochs to train.
        max_iters: Iterations to train; also for a config that counts epochs.
        scale: Input, width and height in pixels, aspect ratio kept.
        batch_size: Images of each process.
        from_scratch: Without pretrained weights: nothing is frozen, batch norm learns its statistics. Scores stay low
            in a short training, so that detections count from 0.001 on.
    """

    data_root: Path | None = None
    max_epochs: int | None = None
    max_iters: int | None = None
    scale: tuple[int, int] | None = None
    batch_size: int | None = None
    from_scratch: bool = False

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return any(asdict(self).values())

    def settings(self, cfg: Config, splits: Splits | None, processes: int = 1) -> dict[str, Any]:
        """What to set in a config.

        Args:
            cfg: The row's config.
            splits: The data of ``data_root``.
            processes: How many train.

        Returns:
            Dotted key, list indices as numbers, to value.

        Raises:
            TrialError: The config cannot be changed so.
        """
        found: dict[str, Any] = {'trial': self.record()}
        if self.batch_size:
            found['train_dataloader.batch_size'] = self.batch_size
        if self.from_scratch:
            found.update(from_scratch(cfg))
        pipelines = {part: pipeline_of(cfg, part) for part in LOADERS}
        if self.scale:
            pipelines = {part: rescaled(pipeline, self.scale) for part, pipeline in pipelines.items()}
            found.update(tta_settings(cfg, self.scale))
        if splits:
            found.update(data_settings(cfg, splits, pipelines))
        elif self.scale:
            found.update(pipeline_settings(cfg, pipelines))
        found.update(self.schedule(cfg, splits.num_training_images if splits else None, processes))
        return found

    def schedule(self, cfg: Config, images: int | None, processes: int = 1) -> dict[str, Any]:
        """The settings of the schedule; the milestones stay at their share of the training.

        Args:
            cfg: The row's config.
            images: Of the training set, if it is another one.
            processes: How many train.
        """
        unit, length = training_length(cfg)
        if self.max_epochs and unit == 'iter':
            raise TrialError(f'this config counts iterations ({length}): give --max-iters in place of --max-epochs')
        if self.max_iters:
            return shortened_to_iters(cfg, self.max_iters)
        if self.max_epochs:
            batch = processes * (self.batch_size or cfg.train_dataloader.batch_size)
            return shortened_to_epochs(cfg, self.max_epochs, max(1, images // batch) if images else None)
        return {}

    def record(self) -> dict[str, Any]:
        """What was asked for, as the config keeps it."""
        asked = {name: value for name, value in asdict(self).items() if value}
        if self.data_root:
            asked.update(data_root=str(self.data_root), data=self.data_root.name)
        return asked


def from_scratch(cfg: Config) -> dict[str, Any]:
    """Settings that drop every pretrained weight; a frozen random layer could not learn."""
    found: dict[str, Any] = {'load_from': None}
    for key, node in walk(cfg.model, 'model'):
        if key.endswith('.init_cfg') and node.get('type') == 'Pretrained':
            found[key] = None
    for name, value in (('frozen_stages', -1), ('norm_eval', False)):
        if name in cfg.model.backbone:
            found[f'model.backbone.{name}'] = value
    for key, node in walk(cfg.model.test_cfg, 'model.test_cfg'):
        if 'score_thr' in node:
            found[f'{key}.score_thr'] = LOW_SCORE
    return found


def shortened_to_epochs(cfg: Config, epochs: int, iterations: int | None) -> dict[str, Any]:
    """Settings for fewer epochs, of so many iterations each; None: of as many as the row's."""
    _, length = training_length(cfg)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        if iterations and not scheduler.get('by_epoch', True):
            schedulers.append(capped_warm_up(scheduler, epochs * iterations))
        else:
            schedulers.append(scaled_scheduler(scheduler, epochs / length))
    found: dict[str, Any] = {'train_cfg.max_epochs': epochs, 'param_scheduler': schedulers}
    if iterations:
        found['default_hooks.logger.interval'] = logging_interval(epochs * iterations)
    return found


def shortened_to_iters(cfg: Config, iters: int) -> dict[str, Any]:
    """Settings for so many iterations, whatever the config counts."""
    _, length = training_length(cfg)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        if scheduler.type == 'LinearLR' and not scheduler.get('by_epoch', True):
            schedulers.append(capped_warm_up(scheduler, iters))
        else:
            schedulers.append(dict(scaled_scheduler(scheduler, iters / length), by_epoch=False))
    return {
        # No validation: the test that follows measures the same checkpoint.
        'train_cfg': dict(type='IterBasedTrainLoop', max_iters=iters, val_begin=iters + 1),
        'param_scheduler': schedulers,
        'train_dataloader.sampler': dict(type='InfiniteSampler', shuffle=True),
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': max(1, iters // CHECKPOINTS),
        # With one, mmengine removes the old checkpoint before it writes the new one.
        'default_hooks.checkpoint.max_keep_ckpts': 2,
        'default_hooks.logger.interval': logging_interval(iters),
        'log_processor.by_epoch': False,
    }


def scaled_scheduler(scheduler: dict, ratio: float) -> dict[str, Any]:
    """A block of ``param_scheduler`` whose times are multiplied by a ratio."""
    scaled = {name: value for name, value in scheduler.items() if name != 'convert_to_iter_based'}
    for name in ('begin', 'end', 'T_max'):
        if isinstance(scaled.get(name), int):
            scaled[name] = round(scaled[name] * ratio)
    if 'milestones' in scaled:
        scaled['milestones'] = [max(1, round(milestone * ratio)) for milestone in scaled['milestones']]
    return scaled


def capped_warm_up(scheduler: dict, iterations: int) -> dict[str, Any]:
    """A warm-up of at most a tenth of the training: mmdet's 500 iterations may be more than all of a trial."""
    return dict(scheduler, end=max(1, min(scheduler['end'], iterations // 10)))


def logging_interval(iterations: int) -> int:
    """Iterations between two lines of the log: mmdet's 50, or ten lines in all."""
    return max(1, min(50, iterations // 10))


def pipeline_of(cfg: Config, part: str) -> list[dict]:
    """The transforms of the (first) training, validation or test set."""
    _, dataset = next(iter(leaf_datasets(cfg[f'{part}_dataloader'].dataset, '')))
    return dataset.pipeline


def rescaled(pipeline: list[dict], scale: tuple[int, int]) -> list[dict]:
    """A pipeline with another input size.

    Raises:
        TrialError: The detector's input size is fixed.
    """
    found = []
    for transform in pipeline:
        if transform['type'] in ('Resize', 'RandomResize', 'RandomChoiceResize'):
            if not transform.get('keep_ratio', True):
                raise TrialError(
                    f'--scale: the input of this detector is fixed, {" x ".join(map(str, transform["scale"]))} pixels; '
                    'its anchors belong to that size'
                )
            transform = dict(type='Resize', scale=scale, keep_ratio=True)
        found.append(dict(transform))
    return found


def pipeline_settings(cfg: Config, pipelines: dict[str, list[dict]]) -> dict[str, Any]:
    """Settings that give every data set of a config its new pipeline."""
    return {
        f'{key}.pipeline': pipelines[part]
        for part in LOADERS
        for key, _ in leaf_datasets(cfg[f'{part}_dataloader'].dataset, f'{part}_dataloader.dataset')
    }


def tta_settings(cfg: Config, scale: tuple[int, int]) -> dict[str, Any]:
    """Settings that scale the sizes of a multi-scale test as the test's own."""
    full = next(transform['scale'] for transform in pipeline_of(cfg, 'test') if 'scale' in transform)
    return {
        f'{key}.scale': tuple(round(size * new / old) for size, new, old in zip(node.scale, scale, full))
        for key, node in walk(cfg.get('tta_pipeline', []), 'tta_pipeline')
        if node.get('type') == 'Resize'
    }


def data_settings(cfg: Config, splits: Splits, pipelines: dict[str, list[dict]]) -> dict[str, Any]:
    """Settings that put another data set in the place of the config's.

    Raises:
        TrialError: The config learns masks and the data set has none.
    """
    masks = any(transform.get('with_mask') for transform in pipelines['train'])
    if masks and not splits.has_masks:
        raise TrialError(f'this config learns masks, and {splits.root} has none')
    found: dict[str, Any] = {}
    for part in LOADERS:
        dataset = splits.dataset(part, pipelines[part])
        old = cfg[f'{part}_dataloader'].dataset
        repeated = old.type == 'RepeatDataset'
        found[f'{part}_dataloader.dataset'] = (
            dict(type=old.type, times=old.times, dataset=dataset) if repeated else dataset
        )
        if part != 'train':
            found[f'{part}_evaluator'] = dict(
                type='LocalizationCocoMetric',
                ann_file=str(splits.annotations[part]),
                metric=['bbox', 'segm'] if masks else 'bbox',
                format_only=False,
            )
    for key in class_counts(cfg):
        found[key] = len(splits.classes)
    return found


def class_counts(cfg: Config) -> Iterator[str]:
    """The keys of the heads that tell the classes apart: not those of one class, which tell objects from background."""
    for key, node in walk(cfg.model, 'model'):
        if node.get('num_classes', 1) > 1:
            yield f'{key}.num_classes'


def apply(cfg: Config, settings: dict[str, Any]) -> Config:
    """Set values in a config, in place, and return it."""
    for key, value in settings.items():
        *parents, last = key.split('.')
        node = cfg
        for name in parents:
            node = node[int(name) if name.isdigit() else name]
        node[int(last) if last.isdigit() else last] = value
    return cfg


def config_text(base: Path, settings: dict[str, Any]) -> str:
    """The config file of a trial: the row's config and a line for everything that is set."""
    lines = [f'_base_ = {str(base)!r}', f'trial = {settings["trial"]!r}']
    for key, value in settings.items():
        if key != 'trial':
            path = ''.join(f'[{name}]' if name.isdigit() else f'.{name}' for name in key.split('.'))
            lines.append(f'_base_{path} = {plain(value)!r}')
    return '\n'.join(lines) + '\n'


def plain(value: Any) -> Any:
    """A value with dicts in the place of mmengine's ``ConfigDict``."""
    if isinstance(value, dict):
        return {name: plain(child) for name, child in value.items()}
    return type(value)(map(plain, value)) if isinstance(value, (list, tuple)) else value

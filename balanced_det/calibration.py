r"""The factor w_loc of an IoU-balanced localisation loss, by the rule of its paper.

.. math:: w_{loc} = \frac{S_0}{S_\lambda}, \quad S_\lambda = \sum_{i \in Pos} iou_i^\lambda \, L_i

over the first iteration of a training: the sum of the loss is then what it was without weights. The sums are the loss
module's own (``weighted_sums``), read while the model computes its loss; nothing is matched or encoded a second time.

A loss can be calibrated if it has ``weighted_sums(*args of forward, lambdas=..., **kwargs of forward)``, ``lambda_``,
``loss_weight``, and a ``normalize`` that is off.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.models.dense_heads import AnchorHead, FoveaHead, SSDHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed
from torch import Tensor, nn

from balanced_det.heads.base import one_class
from balanced_det.models import CenteredSSDAnchorGenerator
from balanced_det.preflight import walk

PAPER_LAMBDAS = (0.5, 1.0, 1.5, 1.8)  # Table 3 of the paper


class CalibrationError(ValueError):
    """A model or its data that gives no w_loc; the message says what to do."""


def calibratable_losses(model: nn.Module) -> dict[str, Any]:
    """The localisation losses of a model that have a w_loc, by module name; not those of a frozen head, as a teacher's.

    Args:
        model: A detector, not wrapped for several GPUs.

    Returns:
        Name -> loss module, in the order of the model.

    Raises:
        CalibrationError: There is none.
    """
    losses: dict[str, Any] = {
        name: module for name, module in model.named_modules() if hasattr(module, 'weighted_sums')
    }
    found = {name: loss for name, loss in losses.items() if not loss.normalize and not _is_frozen(model, name)}
    if found:
        return found
    if losses:
        raise CalibrationError(
            f'{", ".join(losses)}: with normalize=True a loss keeps its sum by itself in every iteration and has no '
            'w_loc, and a frozen head does not train; set normalize=False, or do without the calibration'
        )
    raise CalibrationError(
        'none of the losses of this model has a lambda, so there is no w_loc to calibrate: set loss_bbox to an '
        "IoU-balanced loss, such as dict(type='IoUBalancedSmoothL1Loss', lambda_=1.5, ...)"
    )


def _is_frozen(model: nn.Module, loss_name: str) -> bool:
    """Whether no parameter of the head that a loss belongs to is trained."""
    parameters = list(model.get_submodule(loss_name.rpartition('.')[0]).parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


@contextmanager
def collected_sums(losses: Mapping[str, Any], lambdas: Sequence[float] | None = None) -> Iterator[Tensor]:
    r"""Sum up what the losses are called with while the block runs.

    Args:
        losses: Loss modules that can be calibrated.
        lambdas: Exponents; None: each loss's own.

    Yields:
        Shape (len(losses), 2 + len(lambdas)), float64, on the CPU: the number of positives, :math:`S_0` and
        :math:`S_\lambda` of each exponent, of this process. It grows with each call.
    """
    total = torch.zeros(len(losses), 2 + (1 if lambdas is None else len(lambdas)), dtype=torch.float64)

    def add(row: Tensor, loss: Any, args: tuple, kwargs: dict) -> None:
        exponents = (0.0, *((loss.lambda_,) if lambdas is None else lambdas))
        row[0] += _num_positives(*args, **kwargs)
        row[1:] += loss.weighted_sums(*args, lambdas=exponents, **kwargs).to(row)

    with ExitStack() as stack:
        for row, loss in zip(total, losses.values()):
            stack.callback(loss.register_forward_pre_hook(partial(add, row), with_kwargs=True).remove)
        yield total


def _num_positives(pred: Tensor, target: Tensor, weight: Tensor | None = None, *args: object, **kwargs: object) -> int:
    """How many of the samples that a loss is called with count."""
    return len(pred) if weight is None else int((weight > 0).any(dim=1).sum())


def w_loc(plain: float, weighted: float) -> float | None:
    """The sum of the unweighted loss by that of the weighted one; None where a sum is 0 or not finite."""
    return plain / weighted if plain > 0 and weighted > 0 and math.isfinite(plain) else None


@dataclass
class LossSums:
    """What a number of batches gave.

    Attributes:
        lambdas: The exponents.
        rows: Loss name -> positives, S_0 and S_lambda of each exponent.
        batches: Number of batches.
        images: Number of images.
    """

    lambdas: tuple[float, ...]
    rows: dict[str, list[float]]
    batches: int = 0
    images: int = 0

    def w_loc(self, name: str) -> list[float | None]:
        """w_loc of a loss for each exponent; None where no positive overlaps its box."""
        _, plain, *weighted = self.rows[name]
        return [w_loc(plain, value) for value in weighted]

    def positives(self, name: str) -> int:
        """Number of positive samples of a loss."""
        return int(self.rows[name][0])


Progress = Callable[[LossSums], None]


def from_first_batches(
    cfg: Config, lambdas: Sequence[float], num_batches: int = 1, seed: int = 0, progress: Progress | None = None
) -> LossSums:
    """Sums of the first batches that a training would see, with its first weights; nothing is trained.

    Model, data loader, weights and ``load_from`` are made in the runner's order, so with the seed of an epoch-based
    training on one device these are its batches and weights.

    Args:
        cfg: Config of a detector with a loss that can be calibrated.
        lambdas: The exponents.
        num_batches: How many batches.
        seed: Seed of the weights, the order of the images and their augmentation.
        progress: Called after each batch.

    Returns:
        The sums.

    Raises:
        CalibrationError: No loss can be calibrated, or a weight file cannot be had.
    """
    _seed(cfg, seed)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(get_device())
    losses = calibratable_losses(model)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
    _init_weights(model, cfg)
    model.train()

    def run(data_batch: dict) -> None:
        model(**model.data_preprocessor(data_batch, True), mode='loss')

    return _sum_up(islice(loader, num_batches), run, losses, lambdas, progress)


def from_anchors(
    cfg: Config, lambdas: Sequence[float], num_images: int = 1000, seed: int = 0, progress: Progress | None = None
) -> LossSums:
    """Sums with every anchor (of FoveaBox: every point) as the prediction, from the annotations alone.

    A regression branch starts near zero, and a zero delta is the anchor as it is. The boxes go through the config's own
    pipeline on blank images, are padded and matched by the config's own head; neither image files nor weights are read.

    Args:
        cfg: Config of a single-stage detector or an RPN, with a loss that can be calibrated.
        lambdas: The exponents.
        num_images: At least so many images, in whole batches, or all there are.
        seed: Seed of the order of the images and their augmentation.
        progress: Called after each batch.

    Returns:
        The sums.

    Raises:
        CalibrationError: No loss can be calibrated, or one belongs to a head without anchors of its own.
    """
    _seed(cfg, seed)
    model = MODELS.build(cfg.model)
    losses = calibratable_losses(model)
    heads = [_anchor_head(model, name) for name in losses]
    loader = Runner.build_dataloader(blank_images(cfg.train_dataloader), seed=seed)

    def run(data_batch: dict) -> None:
        data = model.data_preprocessor(data_batch, True)
        for head in heads:
            _loss_at_zero(model, head, data)

    return _sum_up(_first_images(loader, num_images), run, losses, lambdas, progress)


class BlankImage(BaseTransform):
    """Stands in for a transform that loads an image: black, of the annotated height and width."""

    def transform(self, results: dict) -> dict:
        """Add the image and its shapes, as ``LoadImageFromFile`` does."""
        shape = (results['height'], results['width'])
        results.update(img=np.zeros((*shape, 3), np.uint8), img_shape=shape, ori_shape=shape)
        return results


def blank_images(dataloader: dict) -> dict:
    """A data loader's config with blank images in place of those of its files, in wrapped data sets too."""
    dataloader = copy.deepcopy(dataloader)
    for _, block in list(walk(dataloader, 'train_dataloader')):
        kind = block.get('type', '')
        name = (kind if isinstance(kind, str) else kind.__name__).rsplit('.', 1)[-1]
        if re.fullmatch(r'Load\w*Image\w*', name):
            block.clear()
            block.update(type=BlankImage)
    return dataloader


class _NoLoss(nn.Module):
    """In place of a classification loss, which would take most of the time."""

    def forward(self, cls_score: Tensor, *args: object, **kwargs: object) -> Tensor:
        return cls_score.new_zeros(())


def _anchor_head(model: nn.Module, loss_name: str) -> Any:
    """The head that a localisation loss belongs to, without its classification loss."""
    head = model.get_submodule(loss_name.rpartition('.')[0])
    if not isinstance(head, (AnchorHead, FoveaHead)):
        raise CalibrationError(
            f'{loss_name} belongs to {type(head).__name__}, which has no anchors of its own: a RoI has no fit before '
            'the network has proposed it. Calibrate on the first batches instead (leave out --from-anchors)'
        )
    if isinstance(head.prior_generator, CenteredSSDAnchorGenerator):
        raise CalibrationError(
            f'{loss_name} belongs to a head whose maps are made without padding: their sizes do not follow from the '
            'strides. Calibrate on the first batches instead (leave out --from-anchors)'
        )
    if not isinstance(head, SSDHead):  # SSD has few anchors, and ranks its negatives by all scores
        head.loss_cls, head.cls_out_channels = _NoLoss(), 1
    return head


def _loss_at_zero(model: Any, head: Any, data: dict) -> None:
    """Let a head compute its loss with zeros for scores and deltas; ``data`` as the data preprocessor gives it."""
    instances, ignored, metas = unpack_gt_instances(data['data_samples'])
    if head.num_classes == 1:  # an RPN, an ARM: as their detectors do
        instances = one_class(instances)
    num_images, _, height, width = data['inputs'].shape
    strides = head.prior_generator.strides
    counts = np.broadcast_to(head.num_base_priors, len(strides)).tolist()  # one for each level in SSD alone

    def zeros(channels: int) -> list[Tensor]:
        return [
            torch.zeros(num_images, count * channels, math.ceil(height / stride_h), math.ceil(width / stride_w))
            for count, (stride_w, stride_h) in zip(counts, strides)
        ]

    if hasattr(model, 'with_refined'):  # a RefineDet, whose ARM has not moved an anchor yet
        metas = model.with_refined(metas, (zeros(2), zeros(4)))
    head.loss_by_feat(zeros(head.cls_out_channels), zeros(4), instances, metas, ignored)


def _sum_up(
    batches: Iterable[dict],
    run: Callable[[dict], None],
    losses: Mapping[str, Any],
    lambdas: Sequence[float],
    progress: Progress | None,
) -> LossSums:
    result = LossSums(tuple(lambdas), {name: [0.0] * (2 + len(lambdas)) for name in losses})
    with torch.no_grad(), collected_sums(losses, lambdas) as sums:
        for data_batch in batches:
            run(data_batch)
            result.rows = dict(zip(losses, sums.tolist()))
            result.batches += 1
            result.images += len(data_batch['inputs'])
            if progress is not None:
                progress(result)
    return result


def _first_images(loader: Any, num_images: int) -> Iterator[dict]:
    """Whole batches until there are so many images, or as many as the data set has (a sampler may be endless)."""
    left = min(num_images, len(loader.dataset))
    for data_batch in loader:
        yield data_batch
        left -= len(data_batch['inputs'])
        if left <= 0:
            return


def _seed(cfg: Config, seed: int) -> None:
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    set_random_seed(seed)


def _init_weights(model: Any, cfg: Config) -> None:
    """Give the model the weights that a training begins with."""
    try:
        model.init_weights()
        if cfg.get('load_from'):
            load_checkpoint(model, cfg.load_from, map_location='cpu')
    except (OSError, ImportError) as error:
        files = [
            f'{key}.{name}={block[name]!r}'.lstrip('.')
            for key, block in [*walk(cfg.model, 'model'), ('', cfg)]
            for name in ('checkpoint', 'load_from')
            if block.get(name)
        ]
        raise CalibrationError(
            f'a weight file cannot be had ({type(error).__name__}: {error}); the config names {", ".join(files)}. '
            'Without it: --cfg-options model.backbone.init_cfg=None, or, for a head with anchors, --from-anchors'
        ) from error

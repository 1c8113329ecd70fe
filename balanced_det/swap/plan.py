"""What to change in a config so that its detector trains with balanced losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdet.models.roi_heads import PISARoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import TASK_UTILS
from mmengine.config import Config, ConfigDict
from mmengine.utils import import_modules_from_strings

from balanced_det.heads import AnchorLossMixin, FoveaLossMixin, RoILossMixin, SSDLossMixin
from balanced_det.swap.detector import Head, Keys, SwapError, class_of, default, dotted, find_heads, stock_name
from balanced_det.swap.methods import METHODS, HeadForm, LossForm, Method

LOSSES = {'cls': ('loss_cls',), 'loc': ('loss_bbox',), 'both': ('loss_cls', 'loss_bbox')}
HOOK = 'LocWeightCalibrationHook'
SEAMS = (AnchorLossMixin, SSDLossMixin, FoveaLossMixin, RoILossMixin)
LOSS_METHODS = ('loss_by_feat', 'loss_by_feat_single', 'loss_and_target', 'loss')
SIGMOID_OF_ROIS = 'the background is a class of this head, which a sigmoid loss counts as an object'


@dataclass(frozen=True)
class Swap:
    """The changes of a config.

    Attributes:
        edits: Place -> what stands there then: a head's type, the whole block of a loss, the list of imports.
        hooks: What is appended to ``custom_hooks``.
        notes: What stays as it is although it was to be swapped, and why.
    """

    edits: Mapping[Keys, Any]
    hooks: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]

    def apply(self, cfg: Config) -> Config:
        """A copy of the config with the changes."""
        result = copy.deepcopy(cfg)
        for (*parents, last), value in self.edits.items():
            node = result
            for key in parents:
                node = node.setdefault(key, ConfigDict()) if isinstance(key, str) else node[key]
            node[last] = ConfigDict(copy.deepcopy(value)) if isinstance(value, Mapping) else value
        if self.hooks:
            result.custom_hooks = [*(result.get('custom_hooks') or ()), *map(ConfigDict, self.hooks)]
        return result


class _NoBalancedForm(Exception):
    """Why a loss stays as it is: a note if the head's other loss can be swapped, an error if not."""


def plan_swap(
    cfg: Config,
    method: str = 'iou-balanced',
    *,
    losses: str = 'both',
    eta: float | None = None,
    lambda_: float | None = None,
) -> Swap:
    """Find the heads of a config's detector and what to change in them.

    Args:
        cfg: A config for mmdet's ``tools/train.py``.
        method: A key of :data:`METHODS`.
        losses: 'cls', 'loc' or 'both'. With 'both', a loss without a balanced form stays, and a note says so.
        eta: In place of the table's.
        lambda_: In place of the table's.

    Returns:
        The changes.

    Raises:
        SwapError: A head, or every wanted loss of a head, has no balanced form, or is balanced already.
    """
    table = _choice('method', method, METHODS)
    wanted = [key for key in _choice('losses', losses, LOSSES) if key in table.losses]
    if losses != 'both' and not wanted:
        raise SwapError(f'losses={losses!r}: {table.title} replace none of them, they add {", ".join(table.added)}')
    overrides = {name: value for name, value in (('eta', eta), ('lambda_', lambda_)) if value is not None}
    edits: dict[Keys, Any] = {}
    notes: list[str] = []
    for head in find_heads(cfg):
        form = _head_form(head, table)
        _check_kept(head, table)
        blocks, refusals = _loss_blocks(head, form, table, overrides)
        kept = [key for key in wanted if key in refusals]
        if kept and kept == wanted:
            raise SwapError('\n'.join(f'{head.name}.{key} cannot be swapped: {refusals[key]}' for key in kept))
        notes += [f'{head.name}.{key} stays as it is: {refusals[key]}' for key in kept]
        # Our RoI heads refuse a classification loss with an activation of its own. The stock head will do: only the
        # classification loss needs more than it hands over.
        if 'loss_cls' not in refusals or not issubclass(head.cls, BBoxHead):
            edits[(*head.keys, 'type')] = form.type
        edits.update({(*head.keys, key): blocks[key] for key in wanted if key in blocks})
        edits.update({(*head.keys, key): dict(block) for key, block in table.added.items()})
    _check_overrides(overrides, edits)
    return Swap({**_imports(cfg, table.package), **edits}, _hooks(cfg, edits, table.calibrated), tuple(notes))


def swap_config(
    cfg: Config,
    method: str = 'iou-balanced',
    *,
    losses: str = 'both',
    eta: float | None = None,
    lambda_: float | None = None,
) -> Config:
    """A copy of a config with balanced losses; arguments and errors are those of :func:`plan_swap`.

    The method's package is imported, as it is when mmengine loads a config file.
    """
    result = plan_swap(cfg, method, losses=losses, eta=eta, lambda_=lambda_).apply(cfg)
    import_modules_from_strings(**result.custom_imports)
    return result


def _head_form(head: Head, method: Method) -> HeadForm:
    """The balanced form of a head."""
    _check_stock(f'{head.name}.type', head.cls)
    form = method.heads.get(stock_name(head.cls))
    if form is None:
        raise SwapError(_why_not_in_table(head, method))
    if head.roi_head and issubclass(head.roi_head, PISARoIHead):
        raise SwapError(
            f'{head.name} cannot be swapped: {head.roi_head.__name__} calls its losses itself, without the IoU'
        )
    if issubclass(head.cls, BBoxHead) and not (head.argument('with_cls') and head.argument('with_reg')):
        raise SwapError(f'{head.name} cannot be swapped: with_cls=False or with_reg=False, it must score and regress')
    return form


def _check_stock(place: str, cls: type) -> None:
    if any(method.owns(cls.__name__) for method in METHODS.values()):
        raise SwapError(f'{place} is {cls.__name__} already: swap the losses of the config that it comes from')


def _why_not_in_table(head: Head, method: Method) -> str:
    """Where a head computes its losses, and what can be done about it."""
    name = head.cls.__name__
    found = ((base, loss) for base in head.cls.__mro__ for loss in LOSS_METHODS if loss in vars(base))
    owner, loss = next(found, (head.cls, '__init__'))
    for seam in SEAMS:
        if any(owner in hosts for hosts in seam.SEAM.values()):
            return (
                f'{head.name}.type={name!r} is not in the table, but can be: its losses are those of {owner.__name__}\n'
                f'Write a class of two lines on ({seam.__name__}, {name}), as {method.package}/heads.py does, and '
                'enter it in balanced_det/swap/methods.py'
            )
    return (
        f'{head.name}.type={name!r} cannot be swapped: it computes its losses in {owner.__name__}.{loss}, without the '
        f'seam that hands over matched boxes\nHeads that can: {", ".join(method.heads)}'
    )


def _check_kept(head: Head, method: Method) -> None:
    """The losses that stay must be such as the method can work with."""
    for key, names in method.kept.items():
        cls = class_of(head.loss(key), (*head.keys, key))
        _check_stock(f'{head.name}.{key}', cls)
        if stock_name(cls) not in names:
            raise SwapError(
                f'{head.name}.{key}={cls.__name__} does not go with {method.title}: {" and ".join(names)} do'
            )
        if head.loss(key).get('use_sigmoid') and issubclass(head.cls, BBoxHead):
            raise SwapError(f'{head.name}.{key}.use_sigmoid=True does not go with {method.title}: {SIGMOID_OF_ROIS}')


def _loss_blocks(
    head: Head, form: HeadForm, method: Method, overrides: Mapping[str, float]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The balanced losses of a head; and, of a loss without a balanced form, why it has none."""
    blocks, refusals = {}, {}
    for key, forms in method.losses.items():
        stock = head.loss(key)
        cls = class_of(stock, (*head.keys, key))
        _check_stock(f'{head.name}.{key}', cls)
        try:
            if stock_name(cls) not in forms:
                raise _NoBalancedForm(f'{cls.__name__} has no balanced form; {" and ".join(forms)} have one')
            blocks[key] = _loss_block(head, form, stock, cls, forms[cls.__name__], overrides)
        except _NoBalancedForm as reason:
            refusals[key] = str(reason)
    return blocks, refusals


def _loss_block(
    head: Head, form: HeadForm, stock: Mapping[str, Any], cls: type, loss: LossForm, overrides: Mapping[str, float]
) -> dict[str, Any]:
    """The block of a balanced loss."""
    given = {name: value for name, value in stock.items() if name not in ('type', '_scope_')}
    lost = [name for name in given if name not in loss.arguments and given[name] != default(cls, name)]
    if lost:
        raise _NoBalancedForm(f'{loss.type} has no {", ".join(f"{name}={given[name]!r}" for name in lost)}')
    values = {**form.values, **overrides, **loss.spelled, **given}
    if values.get('use_sigmoid') and issubclass(head.cls, BBoxHead):
        raise _NoBalancedForm(f'use_sigmoid=True, and {SIGMOID_OF_ROIS}')
    if 'target_stds' in loss.arguments and form.has_coder:
        values['target_stds'] = _target_stds(head)
    return {'type': loss.type, **{name: values[name] for name in loss.arguments if name in values}}


def _target_stds(head: Head) -> tuple[float, ...]:
    """Those of a head's coder, if the IoU follows from the deltas that it encodes (``check_regression_targets``)."""
    if head.argument('reg_decoded_bbox'):
        raise _NoBalancedForm('reg_decoded_bbox=True hands it boxes, a balanced loss takes encoded deltas')
    block = head.argument('bbox_coder')
    coder = class_of(block, (*head.keys, 'bbox_coder'), TASK_UTILS)
    if coder is not DeltaXYWHBBoxCoder:
        raise _NoBalancedForm(f'the IoU does not follow from what {coder.__name__} encodes, as from DeltaXYWHBBoxCoder')
    for name, neutral in (('target_means', (0.0, 0.0, 0.0, 0.0)), ('add_ctr_clamp', False)):
        value = block.get(name, neutral)
        if (tuple(value) if isinstance(value, (list, tuple)) else value) != neutral:
            raise _NoBalancedForm(f'the IoU does not follow from deltas encoded with bbox_coder.{name}={value}')
    return tuple(float(std) for std in block.get('target_stds', default(coder, 'target_stds')))


def _imports(cfg: Config, package: str) -> dict[Keys, Any]:
    """The imports of a config and the package; nothing if it is among them."""
    own = cfg.get('custom_imports') or {}
    imports = own.get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    if package in imports:
        return {}
    return {
        ('custom_imports', 'imports'): [*imports, package],
        ('custom_imports', 'allow_failed_imports'): own.get('allow_failed_imports', False),
    }


def _hooks(cfg: Config, edits: Mapping[Keys, Any], calibrated: str | None) -> tuple[dict[str, Any], ...]:
    """The hook that sets the weights of swapped losses; nothing if there are none, or if the config has it."""
    # Without 'model' and 'detector' the place is the end of the module's name: semi-supervised models build the block
    # 'detector' as 'student'.
    weights = {
        dotted(tuple(key for key in keys if key not in ('model', 'detector'))): edits[keys].get('loss_weight', 1.0)
        for keys in edits
        if keys[-1] == calibrated
    }
    own = [hook.get('type') for hook in cfg.get('custom_hooks') or ()]
    if not weights or HOOK in [str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1] for kind in own]:
        return ()
    first = next(iter(weights.values()))
    if any(weight != first for weight in weights.values()):
        return (dict(type=HOOK, base_weight=weights),)
    return (dict(type=HOOK) if first == 1.0 else dict(type=HOOK, base_weight=first),)


def _choice(name: str, value: str, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise SwapError(f'{name}={value!r} is not one of {", ".join(choices)}')
    return choices[value]


def _check_overrides(overrides: Mapping[str, float], edits: Mapping[Keys, Any]) -> None:
    """An override must be an exponent that a new block takes."""
    for name, value in overrides.items():
        if not (math.isfinite(value) and value >= 0):
            raise SwapError(f'{name}={value} must be a finite number of at least 0')
        if not any(isinstance(block, Mapping) and name in block for block in edits.values()):
            raise SwapError(f'{name}={value} changes nothing: no loss that takes it is swapped')

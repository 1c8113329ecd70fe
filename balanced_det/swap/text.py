"""Changes of a config as a text config that inherits from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from balanced_det.swap.detector import Keys
from balanced_det.swap.plan import Swap

HOOK_COMMENT = '# Sets loss_weight in the first iteration, so that the loss is as large as without weights by the IoU.'
LINE_LENGTH = 112  # 120 less the brackets that may close behind an item


class _Tree(dict):
    """Changes below a place of a config."""


class _Code(str):
    """Text to write as it stands."""


def inheriting_config(swap: Swap, cfg: Config, base: str, docstring: str) -> str:
    """A config file that changes another.

    Args:
        swap: The changes.
        cfg: The config to which they belong.
        base: Its place, for ``_base_``.
        docstring: First line of the file.

    Returns:
        The text of the file.
    """
    assignments = _value(_tree(swap.edits), cfg, '_base_', merged=True)
    lines = [f'{name} = {to_code(value, lead=len(name) + 3)}' for name, value in assignments.items()]
    if swap.hooks:
        own = [_Code('*_base_.custom_hooks')] if cfg.get('custom_hooks') else []
        lines += [HOOK_COMMENT, f'custom_hooks = {to_code([*own, *swap.hooks], lead=len("custom_hooks = "))}']
    return '\n'.join([f'"""{docstring}"""', f'_base_ = {base!r}', '', *lines, ''])


def to_code(value: Any, indent: int = 0, lead: int = 0) -> str:
    """A value as Python text: on one line where it fits, else each item on a line of its own.

    Args:
        value: Of a config.
        indent: Where its line begins.
        lead: Length of what stands before it on the line.
    """
    if isinstance(value, _Code):
        return value
    if not isinstance(value, (Mapping, list)):
        return repr(value)
    opening, closing = '[', ']'
    items = [('', item) for item in value]
    if isinstance(value, Mapping):
        named = all(key.isidentifier() for key in value if key)
        opening, closing = ('dict(', ')') if named else ('{', '}')
        items = [((f'{key}=' if named else f'{key!r}: ') if key else '', item) for key, item in value.items()]
    line = opening + ', '.join(name + to_code(item) for name, item in items) + closing
    if '\n' not in line and indent + lead + len(line) <= LINE_LENGTH:
        return line
    lines = [' ' * (indent + 4) + name + to_code(item, indent + 4, len(name)) for name, item in items]
    return f'{opening}\n' + ',\n'.join(lines) + closing


def _tree(edits: Mapping[Keys, Any]) -> _Tree:
    tree = _Tree()
    for (*parents, last), value in edits.items():
        node = tree
        for key in parents:
            node = node.setdefault(key, _Tree())
        node[last] = value
    return tree


def _value(change: Any, base: Any, place: str, *, merged: bool) -> Any:
    """What a text config assigns for a change to come true.

    mmengine merges a dict into that of the base, key by key, and replaces a list: in a list a dict begins with a copy.

    Args:
        change: New value, or a tree of changes.
        base: What the original holds there; None for nothing.
        place: How a text config names that.
        merged: Whether the value is merged, not replaced.
    """
    if not isinstance(change, _Tree):
        replaces = merged and isinstance(change, Mapping) and base is not None
        return dict(_delete_=True, **change) if replaces else change
    if isinstance(base, (list, tuple)):
        return [
            _value(change[index], item, f'{place}[{index}]', merged=False)
            if index in change
            else _Code(f'{place}[{index}]')
            for index, item in enumerate(base)
        ]
    children = {
        key: _value(child, (base or {}).get(key), f'{place}.{key}', merged=merged) for key, child in change.items()
    }
    return children if merged else {'': _Code(place), **children}

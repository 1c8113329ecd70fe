"""What the documentation claims and a program can check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmdet.models.dense_heads import AnchorHead, FoveaHead, SSDHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

import harmonic  # noqa: F401  registers the heads
import iou_balanced  # noqa: F401
from balanced_det.heads import AnchorLossMixin, RoILossMixin, SSDLossMixin

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]

register_all_modules(init_default_scope=False)


def head_table():
    """(stock head, what docs/heads.md says of it): a balanced head, '' for a class of one's own, None for no."""
    rows = []
    text = (ROOT / 'docs' / 'heads.md').read_text()
    for stock, *columns, why_not in re.findall(r'^\| (`.*?) \| (.*?) \| (.*?) \| ?(.*?) ?\|$', text, flags=re.M):
        for column in columns:
            assert bool(why_not) == (column == 'no')
            said = None if column == 'no' else ''.join(re.findall(r'`(\w+)`', column))
            rows.extend((name, said) for name in re.findall(r'`(\w+)`', stock))
    return rows


def own_head_table():
    """(Head of this package, its balanced form), from the second table of docs/heads.md."""
    text = (ROOT / 'docs' / 'heads.md').read_text()
    rows = re.findall(r'^\| `(\w+)` \| `(\w+)` \| `(\w+)` \|$', text, flags=re.M)
    return [(own, balanced) for own, *forms in rows for balanced in forms]


@pytest.mark.parametrize(('stock', 'balanced'), head_table() + own_head_table())
def test_head_table_is_true(stock, balanced):
    host = MODELS.get(stock)
    if balanced:
        assert issubclass(MODELS.get(balanced), host)
        return
    mixin = next(
        mixin
        for family, mixin in ((BBoxHead, RoILossMixin), (SSDHead, SSDLossMixin), (AnchorHead, AnchorLossMixin))
        if issubclass(host, family)
    )
    if balanced is None:
        with pytest.raises(TypeError, match='cannot take a balanced loss'):
            type('MyHead', (mixin, host), {})
    else:
        assert issubclass(type('MyHead', (mixin, host), {}), host)


@pytest.mark.parametrize(('package', 'table'), [('mmdet', head_table()), ('balanced_det', own_head_table())])
def test_head_tables_have_every_head_of_the_seams(package, table):
    heads = {
        name
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type)
        and issubclass(cls, (AnchorHead, BBoxHead, FoveaHead))
        and cls.__module__.startswith(f'{package}.')
    }
    assert heads == {stock for stock, _ in table}


@pytest.mark.parametrize('page', PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\(([^)#\s]+)', page.read_text())
    assert [link for link in links if '://' not in link and not (page.parent / link).exists()] == []

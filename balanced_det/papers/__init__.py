"""Every table of both papers as data: 115 rows, what each reports and which config reproduces it.

The data are the two Markdown pages of this folder, to be read beside the papers: paper A is
`iou_balanced_losses.md` (tables A1 to A7), paper B is `harmonic_det.md` (B1 to B5).

>>> row = find(['A2.4'])[0]
>>> row.model, row.hyper, row.reported['AP']
('RetinaNet', {'eta': 1.5, 'lambda': 1.5, 'w_loc': 3.049}, 35.7)
"""

# Relative, and nothing but the standard library: tools/papers.py loads this folder without `balanced_det`, whose import
# takes seconds because it brings mmdet.
from .lookup import UnknownRowError, find, rows, table, tables
from .page import HYPER_PARAMETERS, METRICS, Row, Table, read_tables

__all__ = [
    'HYPER_PARAMETERS',
    'METRICS',
    'Row',
    'Table',
    'UnknownRowError',
    'find',
    'read_tables',
    'rows',
    'table',
    'tables',
]

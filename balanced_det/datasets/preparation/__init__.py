"""Whether a data set is all there, and the annotation files that mmdet needs beside what is downloaded.

``report.py`` what was found, ``files.py`` folders, images and json files, ``conversion.py`` long conversions that can
be interrupted, and one module for each set. Nothing is downloaded.
"""

from ..whole_files import write_json
from .cityscapes import prepare_cityscapes
from .coco import check_coco
from .report import Check, PreparationError, Report
from .voc import prepare_voc, voc_to_coco

__all__ = [
    'Check',
    'PreparationError',
    'Report',
    'check_coco',
    'prepare_cityscapes',
    'prepare_voc',
    'voc_to_coco',
    'write_json',
]

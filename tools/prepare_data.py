"""Check that a data set is all there, and make the annotation files that mmdet needs beside what is downloaded.

Prints what was expected and found, and for each thing that is wrong what exactly and where to get it. The exit status
is 0 only if nothing is. Nothing is downloaded. Interrupted, the same command goes on where it stopped; what is made and
up to date is kept. docs/data.md has the layouts.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

# mmdet prints when it is imported; the standard output is for the result.
with contextlib.redirect_stdout(sys.stderr):
    from balanced_det.datasets import preparation

EXAMPLES = """examples:
  python tools/prepare_data.py coco --root data/coco
  python tools/prepare_data.py voc --root data/VOCdevkit --deep
  python tools/prepare_data.py cityscapes --root data/cityscapes --workers 8
  python tools/prepare_data.py coco --root data/coco_tiny --subset
  python tools/prepare_data.py voc --root data/bccd --classes RBC WBC Platelets
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = parser.add_subparsers(dest='data', required=True, metavar='coco|voc|cityscapes')
    helps = dict(
        coco='COCO 2017: checks only, mmdet reads it as it is',
        voc="Pascal VOC 2007 and 2012, or another set in VOC's format: checks, and writes COCO's format",
        cityscapes='Cityscapes: checks, and writes boxes and masks of the instance maps',
    )
    folders = dict(coco='data/coco', voc='data/VOCdevkit', cityscapes='data/cityscapes')
    for name, text in helps.items():
        options = sets.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
        options.add_argument(
            '--root', type=Path, default=folders[name], help='folder of the set (default: %(default)s)'
        )
        options.add_argument('--subset', action='store_true', help='a part of the set: count images, demand no number')
        options.add_argument('--deep', action='store_true', help='decode every image; else only empty ones are noticed')
        options.add_argument('--workers', type=count, metavar='N', help='processes (default: one per core, at most 8)')
        if name != 'coco':
            options.add_argument('--force', action='store_true', help='convert again what is up to date')
    sets.choices['voc'].add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help="in order (default: VOC's 20, or those in another set's annotations)",
    )
    return parser.parse_args()


def count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 1')
    return int(text)


def main() -> None:
    options = vars(parse_args())
    tasks = dict(coco=preparation.check_coco, voc=preparation.prepare_voc, cityscapes=preparation.prepare_cityscapes)
    task = tasks[options.pop('data')]
    if not options['root'].is_dir():
        sys.exit(f'error: {options["root"]}: no such folder; docs/data.md says what it must hold and where to get it')
    try:
        report = task(**options)
    except KeyboardInterrupt:
        sys.exit('Stopped. The same command goes on where it stopped.')
    except (preparation.PreparationError, OSError) as error:
        sys.exit(f'error: {error}')
    print(report)
    sys.exit(0 if report.complete else 1)


if __name__ == '__main__':
    main()

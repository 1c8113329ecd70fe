"""Write a config that inherits from another and swaps its losses for balanced ones.

Prints what the change does: the difference of the two configs as mmengine loads them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

from balanced_det.swap import LOSSES, METHODS, SwapError, swap_losses

EXAMPLES = """examples:
  python tools/swap_losses.py retinanet_r50_fpn_1x_coco
  python tools/swap_losses.py my_configs/cascade.py -o my_configs/cascade_iou-balanced.py
  python tools/swap_losses.py faster-rcnn_r50_fpn_1x_coco --losses loc --lambda 1.0 --dry-run
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help="path of a config, or the name of one of mmdet's own")
    parser.add_argument('--method', choices=METHODS, default='iou-balanced', help='default: %(default)s')
    parser.add_argument('-o', '--out', type=Path, help='the new config (default: <CONFIG>_<METHOD>.py in this folder)')
    parser.add_argument('--force', action='store_true', help='overwrite the new config if it exists')
    parser.add_argument('--dry-run', action='store_true', help='print the new config, write nothing')
    parser.add_argument(
        '--losses',
        choices=LOSSES,
        default='both',
        help='classification, localisation or both; with both, a loss without a balanced form stays as it is '
        '(default: %(default)s)',
    )
    parser.add_argument('--eta', type=float, help='exponent of the IoU in the classification loss; 0 is the stock loss')
    parser.add_argument(
        '--lambda',
        dest='lambda_',
        metavar='LAMBDA',
        type=float,
        help='exponent of the IoU in the localisation loss; 0 is the stock loss',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        swapped = swap_losses(**vars(args))
    except SwapError as error:
        sys.exit(f'error: {error}')
    if args.dry_run:
        print(f'{swapped.path} would hold:\n\n{swapped.text}')
    print(swapped.diff(args.config))
    for note in swapped.notes:
        print(f'note: {note}')
    if not args.dry_run:
        print(f'wrote {swapped.path}; train it with: python tools/train.py {swapped.path}')


if __name__ == '__main__':
    main()

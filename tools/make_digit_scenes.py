"""Make the demo data set: handwritten digits on photographs, with exact boxes. Needs no download."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from balanced_det.datasets import make_digit_scenes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', default='data/digit_scenes', help='where to write it (default: %(default)s)')
    parser.add_argument('--num-train', type=int, default=2000, help='training images (default: %(default)s)')
    parser.add_argument('--num-val', type=int, default=500, help='validation images (default: %(default)s)')
    parser.add_argument('--size', type=int, default=128, help='width and height, pixels (default: %(default)s)')
    parser.add_argument('--classes', type=int, default=1, choices=(1, 10), help='1: digit; 10: 0 to 9')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another set (default: %(default)s)')
    parser.add_argument('--workers', type=int, help='processes (default: one per core, at most 8)')
    parser.add_argument('--force', action='store_true', help='replace a set of other settings')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        root = make_digit_scenes(**vars(args))
    except KeyboardInterrupt:
        raise SystemExit('Stopped. The same command makes the set.') from None
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'error: {error}') from error
    print(
        f'Digit scenes (a made set from real parts) are in {root}: {args.num_train} training and '
        f'{args.num_val} validation images.'
    )


if __name__ == '__main__':
    main()

"""Print w_loc, the weight of an IoU-balanced localisation loss, for several lambda; nothing is trained.

By the rule of the paper the weight keeps the summed loss of the first iteration: w_loc = sum L / sum iou^lambda L.
It is taken from the first batch of the training that the config describes, with the weights it begins with; or, with
--from-anchors, from the annotations alone, the prediction being every anchor as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

# mmdet and pycocotools print what they do; the standard output is for the result.
with contextlib.redirect_stdout(sys.stderr):
    from mmdet.registry import MODELS
    from mmengine.config import Config, ConfigDict, DictAction
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from balanced_det import calibration, preflight, swap
    from balanced_det.calibration import CalibrationError, LossSums

IMAGES = 1000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        help="a config file, or the name of one of mmdet's own; a stock config gets the balanced loss in memory",
    )
    parser.add_argument(
        '--lambda',
        dest='lambdas',
        type=exponent,
        nargs='+',
        default=calibration.PAPER_LAMBDAS,
        metavar='LAMBDA',
        help='exponents (default: those of Table 3 of the paper, %(default)s)',
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--batches', type=count, default=1, metavar='N', help='first batches (default: %(default)s)')
    source.add_argument(
        '--from-anchors',
        action='store_true',
        help='from the annotations alone, without images and weights; for RetinaNet, SSD, FoveaBox, RPN',
    )
    parser.add_argument(
        '--images', type=count, metavar='N', help=f'images for --from-anchors (default: all, at most {IMAGES})'
    )
    parser.add_argument('--seed', type=int, help="of weights, image order and flips (default: the config's, or 0)")
    parser.add_argument('--json', action='store_true', help='print JSON, and nothing else, to the standard output')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help="changes to the config, as mmdet's tools",
    )
    args = parser.parse_args()
    if args.images and not args.from_anchors:
        parser.error('--images goes with --from-anchors; for the first batches there is --batches')
    return args


def exponent(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f'{text} is not a number of at least 0')
    return value


def count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 1')
    return int(text)


def load(args: argparse.Namespace) -> Config:
    """The config, with its localisation losses swapped if none of its losses has a lambda."""
    cfg = preflight.load_config(str(swap.find_config(args.config)), args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    losses = [
        MODELS.get(block['type']) for _, block in preflight.loss_blocks(cfg.model) if isinstance(block['type'], str)
    ]
    if not any(hasattr(loss, 'weighted_sums') for loss in losses):
        cfg = swap.swap_config(cfg, losses='loc')
    preflight.check_losses(cfg.model)
    preflight.check_heads(cfg.model)
    for key, dataset in preflight.leaf_datasets(cfg.train_dataloader.dataset, 'train_dataloader.dataset'):
        preflight.check_files(key, ConfigDict(dataset, data_prefix={}) if args.from_anchors else dataset)
    return cfg


@contextlib.contextmanager
def progress() -> Iterator[Callable[[LossSums], None]]:
    """How far it is, on the error output: one line that is rewritten in a terminal, one every ten seconds elsewhere."""
    terminal, last = sys.stderr.isatty(), time.monotonic()

    def report(sums: LossSums) -> None:
        nonlocal last
        if time.monotonic() - last >= (0.2 if terminal else 10):
            last = time.monotonic()
            line = f'{sums.batches} batches, {sums.images} images'
            print(f'\r\033[K{line}' if terminal else line, end='' if terminal else '\n', file=sys.stderr, flush=True)

    try:
        yield report
    finally:
        if terminal:
            print('\r\033[K', end='', file=sys.stderr, flush=True)


def measure(args: argparse.Namespace, cfg: Config, seed: int) -> LossSums:
    if args.from_anchors:
        with progress() as report:
            return calibration.from_anchors(cfg, args.lambdas, args.images or IMAGES, seed, report)
    with progress() if args.batches > 1 else contextlib.nullcontext() as report:
        return calibration.from_first_batches(cfg, args.lambdas, args.batches, seed, report)


def as_json(args: argparse.Namespace, sums: LossSums, seed: int) -> str:
    losses = {
        name: dict(
            positives=sums.positives(name),
            w_loc=[dict(zip(('lambda', 'w_loc'), pair)) for pair in zip(sums.lambdas, sums.w_loc(name))],
        )
        for name in sums.rows
    }
    source = 'anchors' if args.from_anchors else 'first batches'
    result = dict(config=args.config, source=source, seed=seed, batches=sums.batches, images=sums.images, losses=losses)
    return json.dumps(result, indent=2)


def as_table(args: argparse.Namespace, sums: LossSums, seed: int) -> str:
    of = 'every anchor as it is' if args.from_anchors else f'weights of a new training, seed {seed}'
    batches = f'{sums.images} images in {sums.batches} batch{"es" if sums.batches > 1 else ""}'
    rows = [('lambda', *sums.rows)]
    for index, lambda_ in enumerate(sums.lambdas):
        values = [sums.w_loc(name)[index] for name in sums.rows]
        rows.append((f'{lambda_:g}', *('-' if value is None else f'{value:.3f}' for value in values)))
    rows.append(('positives', *(str(sums.positives(name)) for name in sums.rows)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
    return '\n'.join([f'w_loc of {args.config}\n{of}; {batches}', '', *lines])


def main() -> None:
    args = parse_args()
    MMLogger.get_instance('calibrate_loc_weight', log_level='WARNING')  # mmengine logs how each layer is initialised
    try:
        with contextlib.redirect_stdout(sys.stderr):
            cfg = load(args)
            seed = (cfg.get('randomness') or {}).get('seed') if args.seed is None else args.seed
            seed = 0 if seed is None else seed
            sums = measure(args, cfg, seed)
    except (CalibrationError, preflight.ConfigProblem, swap.SwapError, FileNotFoundError) as error:
        sys.exit(f'{args.config}: {error}')
    print(as_json(args, sums, seed) if args.json else as_table(args, sums, seed))
    if any(None in sums.w_loc(name) for name in sums.rows):
        sys.exit('A loss got no positive that overlaps its box: take more --batches or --images.')


if __name__ == '__main__':
    main()

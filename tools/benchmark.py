"""Measure what the losses cost beside those they replace.

  loss        forward and backward of classification losses on the same logits, with peers; peak memory
  heads       loss step of each head with stock, IoU-balanced and Harmonic losses; waits of the host for a GPU
  steps       whole training steps of one detector with each of them
  growth      time and memory of the fused loss over anchors and classes; a figure (needs matplotlib)
  evaluation  the backends of the metrics (needs faster-coco-eval)
  all         all of these
  show        measures nothing: prints what --out holds

Cases take turns in one run; ratios are medians of the ratios within a round, with the smallest and the largest.
Random data and weights: nothing is downloaded. Each part is written to --out while it runs. For what two parts need:
pip install -e '.[plots,fast-eval]'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))


import torch

import harmonic  # noqa: F401  registers the heads
import iou_balanced  # noqa: F401  registers the heads and losses
from balanced_det.benchmark.conditions import conditions
from balanced_det.benchmark.evaluation import evaluation
from balanced_det.benchmark.growth import measure_growth
from balanced_det.benchmark.heads import measure_heads
from balanced_det.benchmark.losses import measure_losses
from balanced_det.benchmark.measure import choose_device
from balanced_det.benchmark.report import PARTS, BenchmarkError, Result, check, figure_name, read, text, update
from balanced_det.benchmark.steps import measure_steps

MEASURES = dict(loss=measure_losses, heads=measure_heads, steps=measure_steps, growth=measure_growth)
QUICK_ROUNDS, QUICK_IMAGES = 2, 20
NEEDED = dict(growth='matplotlib', evaluation='faster_coco_eval')


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        check_extras(args)
        for part in args.parts:
            result = measure(part, args)
            print(f'{text(result)}\n', flush=True)
        results = read(args.out, args.device.type)
        if args.show:
            print('\n\n'.join(map(text, results.values())) or f'nothing was measured on {args.device.type}: {args.out}')
        if args.update:
            check(results, args.device.type)
        if 'growth' in results and ('growth' in args.parts or args.update):
            folder = ROOT / 'docs' / 'images' if args.update else args.out
            draw(results['growth'], folder / figure_name(args.device.type))
        if args.update:
            update(ROOT / 'docs' / 'performance.md', results, args.device.type)
    except (BenchmarkError, OSError) as error:
        sys.exit(f'error: {error}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='+', choices=(*PARTS, 'all', 'show'), metavar='PART', help='see above')
    parser.add_argument('--device', help='cpu, cuda or cuda:1 (default: cuda where there is one)')
    parser.add_argument('--threads', type=int, help="torch's threads on a CPU (default: torch's own)")
    parser.add_argument('--rounds', type=int, help='rounds of each part; short steps take more (default: 3 to 15)')
    parser.add_argument(
        '--quick', action='store_true', help='a smoke run on tiny sizes, in OUT/quick; its numbers say nothing'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs', 'benchmark'), help='json and figure (default: %(default)s)'
    )
    parser.add_argument('--update', action='store_true', help='write what --out holds into docs/performance.md')
    args = parser.parse_args()
    args.device = choose_device(args.device)
    if args.quick and args.update:
        parser.error('--quick measures nothing that could be told: leave out --update')
    if args.rounds is not None and args.rounds < 1:
        parser.error(f'--rounds {args.rounds}: give at least 1')
    args.show = 'show' in args.parts
    args.parts = [part for part in PARTS if part in args.parts or 'all' in args.parts]
    if args.quick:
        args.out /= 'quick'
    return args


def measure(part: str, args: argparse.Namespace) -> Result:
    """Run a part; what it has found is written after each row."""
    result = Result(part, args.device.type, conditions(part, args.device, command(args)), args.quick)
    for row in rows_of(part, args):
        result.rows.append(row)
        result.write(args.out)
    result.complete = True
    result.write(args.out)
    return result


def command(args: argparse.Namespace) -> str:
    """The command line that measures the same, wherever its results go."""
    options = {name: getattr(args, name) for name in ('device', 'threads', 'rounds')}
    given = [f'--{name} {value}' for name, value in options.items() if value is not None]
    return ' '.join(['python tools/benchmark.py', *args.parts, *given, *['--quick'] * args.quick])


def check_extras(args: argparse.Namespace) -> None:
    """What is missing is told before hours of measuring.

    Raises:
        BenchmarkError: A part needs a package that is not installed.
    """
    parts = {*args.parts, *['growth'] * args.update}
    missing = {part: package for part, package in NEEDED.items() if part in parts and not find_spec(package)}
    if missing:
        needs = ', '.join(f'{part} needs {package}' for part, package in missing.items())
        raise BenchmarkError(f"{needs}: pip install -e '.[plots,fast-eval]'")


def rows_of(part: str, args: argparse.Namespace) -> Iterable[dict]:
    """What a part measures."""

    def progress(line: str) -> None:
        print(f'{part}: {line}', file=sys.stderr, flush=True)

    rounds = args.rounds or (QUICK_ROUNDS if args.quick else None)
    options = {} if rounds is None else dict(rounds=rounds)
    if part == 'evaluation':
        images = dict(num_images=QUICK_IMAGES) if args.quick else {}
        return evaluation(progress=progress, **images, **options)
    return MEASURES[part](args.device, quick=args.quick, progress=progress, **options)


def draw(result: Result, path: Path) -> None:
    """Draw the figure of the part ``growth``."""
    from balanced_det.benchmark.figures import growth_figure  # matplotlib is an extra

    figure = growth_figure(result.rows, f'{result.conditions["machine"]}; {result.conditions["versions"]}')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f'drew {path}', file=sys.stderr)


if __name__ == '__main__':
    main()

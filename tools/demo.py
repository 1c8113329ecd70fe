"""Train a small RetinaNet with each method on digit scenes; print a table and write two pictures.

Baseline and balanced detector differ in the loss blocks of their configs alone: same seed, data and schedule. An
interrupted demo goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pycocotools.coco import COCO

from balanced_det.analysis import comparison, figures
from balanced_det.analysis.runs import Run, RunFailed, train_and_predict
from balanced_det.datasets import make_digit_scenes

CONFIGS = {
    'baseline': 'retinanet_r18_fpn_digit-scenes.py',
    'iou-balanced': 'retinanet_r18_fpn_iou-balanced_digit-scenes.py',
    'harmonic': 'retinanet_r18_fpn_harmonic_digit-scenes.py',
    'harmonic-detached': 'retinanet_r18_fpn_harmonic-detached_digit-scenes.py',
}
DEFAULT_METHODS = ('baseline', 'iou-balanced', 'harmonic')
ITERATIONS, QUICK_ITERATIONS = 1500, 750
SUBJECT = 'Digit scenes: a made set of real digits on real photographs'
NUM_PICTURED = 2


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help=f'{QUICK_ITERATIONS} iterations, not {ITERATIONS}')
    parser.add_argument(
        '--seeds',
        type=int,
        default=1,
        metavar='N',
        help='train each method N times: mean and standard error of the paired differences (default: %(default)s)',
    )
    parser.add_argument(
        '--methods',
        default=','.join(DEFAULT_METHODS),
        help=f'comma separated, of {", ".join(CONFIGS)}; the others are compared with the first (default: %(default)s)',
    )
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'digit_scenes', help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='folder of the results (default: work_dirs/demo, or demo-quick)')
    args = parser.parse_args()
    args.methods = args.methods.split(',')
    unknown = [method for method in args.methods if method not in CONFIGS]
    if unknown or len(set(args.methods)) < len(args.methods):
        parser.error(f'--methods {",".join(args.methods)}: choose from {", ".join(CONFIGS)}, each once')
    if args.seeds < 1:
        parser.error(f'--seeds {args.seeds}: at least 1')
    args.out = (args.out or ROOT / 'work_dirs' / ('demo-quick' if args.quick else 'demo')).absolute()
    args.data_root = args.data_root.absolute()
    return args


def make_runs(args: argparse.Namespace) -> dict[tuple[str, int], Run]:
    iters = QUICK_ITERATIONS if args.quick else ITERATIONS
    schedule = [
        f'train_cfg.max_iters={iters}',
        f'train_cfg.val_interval={iters + 1}',
        f'param_scheduler.1.end={iters}',
        f'param_scheduler.1.T_max={iters - 100}',
    ]
    data = [
        f'{loader}.dataset.data_root={args.data_root}/'
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    ] + [
        f'{evaluator}.ann_file={args.data_root}/annotations/val.json'
        for evaluator in ('val_evaluator', 'test_evaluator')
    ]
    return {
        (method, seed): Run(
            name=f'{method}, seed {seed}',
            config=ROOT / 'configs' / 'demo' / CONFIGS[method],
            folder=args.out / f'seed{seed}' / method,
            max_iters=iters,
            options=(*schedule, *data, f'randomness.seed={seed}'),
        )
        for seed in range(args.seeds)
        for method in args.methods
    }


class Progress:
    """One line that tells how far the trainings are; rewritten in a terminal, a line a minute elsewhere."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.begin, self.begin_done = time.monotonic(), self.done()
        self.last = float('-inf')

    def done(self) -> int:
        """Iterations done by all runs."""
        return sum(run.max_iters if run.trained else run.iterations for run in self.runs)

    def __call__(self, going: Sequence[Run]) -> None:
        """Print the line, if it is time to."""
        now = time.monotonic()
        if not sys.stdout.isatty() and now - self.last < 60:
            return
        self.last = now
        done, total = self.done(), sum(run.max_iters for run in self.runs)
        rate = (done - self.begin_done) / (now - self.begin)
        left = f'{(total - done) / rate / 60:.1f} min left' if rate > 0 else 'starting'
        line = ' | '.join([f'{run.name}: {run.iterations}/{run.max_iters}' for run in going] + [left])
        print(f'\r\033[K{line}' if sys.stdout.isatty() else line, end='' if sys.stdout.isatty() else '\n', flush=True)


def report(args: argparse.Namespace, runs: dict[tuple[str, int], Run]) -> str:
    """Write table, pictures and their data; returns the table as text."""
    annotations = args.data_root / 'annotations' / 'val.json'
    results = {
        method: [comparison.measure(annotations, runs[method, seed].predictions) for seed in range(args.seeds)]
        for method in args.methods
    }
    table = comparison.comparison_table({method: [values for values, _ in seeds] for method, seeds in results.items()})
    text = comparison.format_table(table).to_string()
    table.to_csv(args.out / 'table.csv', float_format='%.6f')
    (args.out / 'table.txt').write_text(f'{caption(args)}\n\n{text}\n')
    matched = {method: seeds[0][1] for method, seeds in results.items()}
    figures.score_iou_figure(matched, SUBJECT).savefig(args.out / 'score_iou.png')
    with (args.out / 'score_iou.csv').open('w') as stream:
        stream.write('method,score,iou\n')
        for method, (scores, ious) in matched.items():
            stream.writelines(f'{method},{score:.4f},{iou:.4f}\n' for score, iou in zip(scores, ious))
    loaded = {method: comparison.load(annotations, runs[method, 0].predictions) for method in args.methods}
    figures.boxes_figure(
        fullest_images(loaded[args.methods[0]][0]),
        args.data_root / 'val',
        loaded,
        SUBJECT,
    ).savefig(args.out / 'boxes.png')
    return text


def fullest_images(ground_truth: COCO) -> list[int]:
    """The first images with the most boxes: a rule that looks at no detection."""
    counts = {image_id: len(ground_truth.getAnnIds([image_id])) for image_id in sorted(ground_truth.imgs)}
    return sorted(counts, key=lambda image_id: -counts[image_id])[:NUM_PICTURED]


def caption(args: argparse.Namespace) -> str:
    iters = QUICK_ITERATIONS if args.quick else ITERATIONS
    seeds = 'one seed' if args.seeds == 1 else f'mean of {args.seeds} seeds'
    return f'{SUBJECT}. 500 images of 128 x 128, {iters} iterations of batch 8 from scratch, {seeds}. AP in percent.'


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    runs = make_runs(args)
    try:
        print(f'1/3 digit scenes in {args.data_root}', flush=True)
        make_digit_scenes(args.data_root)
        parallel = min(len(runs), os.cpu_count() or 1)
        print(f'2/3 training {len(runs)} detectors, {parallel} at a time; logs in {args.out}', flush=True)
        progress = Progress(list(runs.values()))
        train_and_predict(list(runs.values()), parallel, progress)
        print('\r\033[K' if sys.stdout.isatty() else '', end='')
        print('3/3 table and pictures', flush=True)
        text = report(args, runs)
    except KeyboardInterrupt:
        sys.exit('\nStopped. The same command goes on from the last checkpoint.')
    except (RunFailed, ValueError, FileExistsError, ImportError) as error:
        sys.exit(f'\nerror: {error}')
    print(f'\n{caption(args)}\n\n{text}\n')
    if args.seeds == 1:
        print('One seed tells little: differences of about 1 AP are within the noise of a seed; --seeds 4 measures it.')
    print(f'Pictures: {args.out}/boxes.png and {args.out}/score_iou.png; table: {args.out}/table.txt')
    print(f'Took {(time.monotonic() - began) / 60:.1f} min on {os.cpu_count()} cores.')


if __name__ == '__main__':
    main()

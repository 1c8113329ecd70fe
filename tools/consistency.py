"""Measure how far the scores of detections tell their IoU with the ground truth, and draw it.

Prints a table; writes a picture (consistency.png) and its curves (curves.csv).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

# mmdet prints when it is imported; the standard output is for the result.
with contextlib.redirect_stdout(sys.stderr):
    from balanced_det.analysis import figures
    from balanced_det.evaluation import (
        CocoFileError,
        Consistency,
        ConsistencyCurves,
        MatchedDetections,
        consistency,
        consistency_curves,
        match_detections,
        read_annotations,
        read_results,
    )

EXAMPLES = """examples:
  python tools/consistency.py work_dirs/mine/test.bbox.json data/coco/annotations/instances_val2017.json
  python tools/consistency.py stock.bbox.json val.json balanced.bbox.json --names baseline,iou-balanced --out pictures
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('predictions', type=Path, help='COCO results file of boxes (mmdet: PREFIX.bbox.json)')
    parser.add_argument('annotations', type=Path, help='COCO annotation file of the same images')
    parser.add_argument('more', type=Path, nargs='*', help='more results files, to be compared with the first')
    parser.add_argument('--names', help='comma separated, one for each results file (default: its folder and name)')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/consistency'), help='folder of the files (default: %(default)s)'
    )
    parser.add_argument('--json', action='store_true', help='print JSON, and nothing else, to the standard output')
    for option, default, text in (
        ('--min-iou', 0.5, 'a detection with less has found nothing: left out of gap and correlations'),
        ('--min-score', 0.0, 'a detection with less is not counted at all'),
        ('--high-score', 0.5, 'of the share of both high'),
        ('--high-iou', 0.5, 'of the share of both high'),
    ):
        parser.add_argument(option, type=float, default=default, metavar='X', help=f'{text} (default: %(default)s)')
    parser.add_argument(
        '--max-per-image', type=int, default=100, metavar='N', help='best by score that count (default: %(default)s)'
    )
    args = parser.parse_args()
    args.files = [args.predictions, *args.more]
    args.names = args.names.split(',') if args.names else [f'{file.parent.name}/{file.name}' for file in args.files]
    if len(set(args.names)) != len(args.files):
        parser.error(f'--names: {len(args.files)} different names are needed, got {", ".join(args.names)}')
    if args.max_per_image < 1:
        parser.error(f'--max-per-image {args.max_per_image}: at least 1')
    return args


def match(args: argparse.Namespace) -> dict[str, MatchedDetections]:
    ground_truth = read_annotations(args.annotations)
    return {
        name: match_detections(ground_truth, read_results(file, ground_truth), max_per_image=args.max_per_image)
        for name, file in zip(args.names, args.files)
    }


def as_table(measured: Mapping[str, Consistency], args: argparse.Namespace) -> str:
    head = ('', 'detections', 'found', 'mean gap', 'Pearson', 'Spearman', 'both high')
    rows = [head]
    for name, (detections, found, *shares) in measured.items():
        rows.append((name, str(detections), str(found), *(f'{value:.4f}' for value in shares)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ['  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return '\n'.join(
        [
            *lines,
            '',
            f'found: IoU >= {args.min_iou:g}; mean gap |score - IoU| and correlations are over those',
            f'both high: score >= {args.high_score:g} and IoU >= {args.high_iou:g}, share of the detections',
        ]
    )


def as_json(measured: Mapping[str, Consistency], curves: Mapping[str, ConsistencyCurves]) -> str:
    result = {
        name: {**values._asdict(), 'curves': {key: curve.tolist() for key, curve in curves[name]._asdict().items()}}
        for name, values in measured.items()
    }
    return json.dumps(without_nan(result), indent=2)


def without_nan(value: Any) -> Any:
    """JSON has no NaN: null in its place."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if math.isnan(value) else value


def write_csv(file: Path, curves: Mapping[str, ConsistencyCurves]) -> None:
    with file.open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(['name', *ConsistencyCurves._fields])
        for name, curve in curves.items():
            for iou, detections, score, share in zip(*curve):
                writer.writerow([name, f'{iou:.2f}', int(detections), f'{score:.6f}', f'{share:.6f}'])


def main() -> None:
    args = parse_args()
    corner = dict(min_score=args.min_score, high_score=args.high_score, high_iou=args.high_iou)
    try:
        matched = match(args)
        args.out.mkdir(parents=True, exist_ok=True)
    except (CocoFileError, OSError) as error:
        sys.exit(f'error: {error}')
    measured = {name: consistency(found, min_iou=args.min_iou, **corner) for name, found in matched.items()}
    curves = {name: consistency_curves(found, min_score=args.min_score) for name, found in matched.items()}
    print(as_json(measured, curves) if args.json else as_table(measured, args))
    write_csv(args.out / 'curves.csv', curves)
    figures.consistency_figure(matched, f'Detections on {args.annotations}', **corner).savefig(
        args.out / 'consistency.png'
    )
    print(f'wrote {args.out}/consistency.png and {args.out}/curves.csv', file=sys.stderr)


if __name__ == '__main__':
    main()

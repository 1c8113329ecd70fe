"""The part ``evaluation``: COCO's AP by each backend of the metrics, on made detections.

What is timed is what the backends differ in, matching and AP at ten IoU thresholds, four ranges of area and three
numbers of detections. Reading the two json files is the same for both and a case of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval

from balanced_det.benchmark.measure import Progress, compare
from balanced_det.evaluation.backends import BACKENDS, evaluators

NUM_CLASSES = 80
WIDTH, HEIGHT = 640, 480
MEAN_BOXES = 7
MAX_DETECTIONS = 100


def evaluation(num_images: int = 5000, rounds: int = 3, seed: int = 0, progress: Progress | None = None) -> list[dict]:
    """Time the backends in turn on the same files.

    Args:
        num_images: How many images are made; 5000 has COCO's val2017.
        rounds: How many rounds are counted.
        seed: Of what is made.
        progress: Is told which round has ended.

    Returns:
        Rows: ``group``, ``case`` (a backend, or reading the files), ``seconds`` of each round, and
        ``difference``, the largest from pycocotools in any precision, recall or mean (None for the reading).

    Raises:
        ImportError: If a backend's package cannot be imported.
    """
    done: dict[str, COCOeval] = {}
    with tempfile.TemporaryDirectory() as folder:
        truths, detections = write_files(Path(folder), num_images, seed)
        loaded = _read(truths, detections)
        cases: dict[str, Callable[[], object]] = {
            backend: _evaluation(evaluators(backend)['COCOeval'], backend, loaded, done) for backend in BACKENDS
        }
        cases['reading the files'] = lambda: _read(truths, detections)
        seconds = compare(cases, rounds, progress)
    base = BACKENDS[0]
    return [
        dict(
            group=f'{num_images} images, {len(loaded[0].anns)} boxes, {len(loaded[1].anns)} detections',
            case=case,
            seconds=seconds[case],
            difference=_difference(done[case], done[base]) if case in done else None,
        )
        for case in cases
    ]


def write_files(folder: Path, num_images: int, seed: int) -> tuple[Path, Path]:
    """Write made ground truth and detections of it.

    Three in five boxes of an image are found, each by two detections that are off by 7 % of its size and of which
    one in ten has another class; the other detections are noise, mostly of lower scores. Scores have three digits,
    so that some are equal.

    Args:
        folder: Where to.
        num_images: How many images.
        seed: Of the random numbers.

    Returns:
        Annotation file and results file, in COCO's format.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict] = []
    detections: list[dict] = []
    for image in range(1, num_images + 1):
        boxes, labels = _boxes(rng, rng.poisson(MEAN_BOXES))
        for box, label in zip(boxes.tolist(), labels.tolist()):
            area, crowd = box[2] * box[3], int(rng.random() < 0.01)
            common = dict(id=len(annotations) + 1, image_id=image, category_id=label)
            annotations.append(dict(common, bbox=box, area=area, iscrowd=crowd))
        for box, label, score in _detections(rng, boxes, labels):
            detections.append(dict(image_id=image, category_id=label, bbox=box, score=score))
    content = {
        'images': [dict(id=i, width=WIDTH, height=HEIGHT) for i in range(1, num_images + 1)],
        'categories': [dict(id=k, name=f'class {k}') for k in range(1, NUM_CLASSES + 1)],
        'annotations': annotations,
    }
    paths = folder / 'annotations.json', folder / 'detections.json'
    for path, rows in zip(paths, (content, detections)):
        path.write_text(json.dumps(rows))
    return paths


def _boxes(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (count, 4), xywh in pixels, of 8 to 300 pixels a side, and their classes (count,), from 1."""
    sides = np.exp(rng.uniform(np.log(8), np.log(300), size=(count, 2)))
    corners = rng.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sides)
    return np.hstack([corners, sides]).round(2), rng.integers(1, NUM_CLASSES + 1, count)


def _detections(
    rng: np.random.Generator, boxes: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[list[float], int, float]]:
    """Box, class and score of up to 100 detections: jittered ground truth, then noise."""
    copied = np.flatnonzero(rng.random(len(boxes)) < 0.6).repeat(2)
    found = boxes[copied] + rng.normal(scale=0.07, size=(len(copied), 4)) * np.tile(boxes[copied, 2:], 2)
    found[:, 2:] = found[:, 2:].clip(min=1)
    confused = rng.random(len(copied)) < 0.1
    classes = np.where(confused, rng.integers(1, NUM_CLASSES + 1, len(copied)), labels[copied])
    noise, others = _boxes(rng, int(rng.integers(0, MAX_DETECTIONS + 1)))
    scores = np.concatenate([rng.beta(3, 2, len(found)), rng.beta(1, 6, len(noise))]).round(3)
    columns = np.vstack([found, noise]).round(2), np.concatenate([classes, others]), scores
    return zip(*(column[:MAX_DETECTIONS].tolist() for column in columns))


def _read(truths: Path, detections: Path) -> tuple[COCO, COCO]:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        ground_truth = COCO(str(truths))
        return ground_truth, ground_truth.loadRes(str(detections))


def _evaluation(
    make: Callable[..., COCOeval], name: str, loaded: tuple[COCO, COCO], done: dict[str, COCOeval]
) -> Callable[[], None]:
    """A case: one evaluation as mmdet's ``CocoMetric`` does it; what it leaves goes to ``done``."""

    def evaluate() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            run = make(*loaded, 'bbox')
            run.params.maxDets = [100, 300, 1000]
            run.evaluate()
            run.accumulate()
            run.summarize()
        done[name] = run

    return evaluate


def _difference(run: COCOeval, base: COCOeval) -> float:
    pairs = [(run.eval[key], base.eval[key]) for key in ('precision', 'recall')] + [(run.stats, base.stats)]
    return max(float(np.abs(mine - other).max()) for mine, other in pairs)

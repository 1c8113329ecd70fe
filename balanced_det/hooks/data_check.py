"""Says what a training leaves out, and stops one whose loss block does not fit its head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mmengine
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import HOOKS
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.fileio import get_local_path
from mmengine.hooks import Hook
from mmengine.runner import Runner

from balanced_det.boxes import visible_boxes
from balanced_det.heads import check_heads


@dataclass
class BoxCounts:
    """What a training set holds that cannot be learnt from.

    Attributes:
        images: Images of the set.
        without_boxes: Images that have no box of the classes at hand.
        boxes: Boxes of the classes at hand, crowds not counted.
        zero_size: Boxes of zero width or height; of a COCO set also those below one pixel, which mmdet drops.
        outside: Boxes without an area inside their image, those of zero size not counted.
    """

    images: int = 0
    without_boxes: int = 0
    boxes: int = 0
    zero_size: int = 0
    outside: int = 0

    def add_image(self, boxes: torch.Tensor, img_shape: tuple[int, int], min_size: float = 0.0) -> None:
        """Count the boxes of one image, (n, 4) xyxy in pixels; ``img_shape`` is (height, width)."""
        size = boxes[:, 2:] - boxes[:, :2]
        zero_size = ((size <= 0) | (size < min_size)).any(dim=1)
        self.images += 1
        self.without_boxes += int(not len(boxes))
        self.boxes += len(boxes)
        self.zero_size += int(zero_size.sum())
        self.outside += int((~zero_size & ~visible_boxes(boxes, img_shape)).sum())


def count_boxes(dataset: BaseDataset) -> BoxCounts:
    """Count a detection set's boxes as annotated, before mmdet filters them.

    Args:
        dataset: A dataset of mmdet, without wrappers. Of a COCO set the annotation file is read again, because
            mmdet drops its zero-size boxes on loading; of any other the loaded boxes are counted.

    Returns:
        The counts.
    """
    counts = BoxCounts()
    coco = isinstance(dataset, CocoDataset)
    for boxes, img_shape in _coco_images(dataset) if coco else _loaded_images(dataset):
        counts.add_image(torch.tensor(boxes).reshape(-1, 4), img_shape, min_size=1.0 if coco else 0.0)
    return counts


def _coco_images(dataset: CocoDataset) -> Iterator[tuple[list, tuple[int, int]]]:
    with get_local_path(dataset.ann_file, backend_args=dataset.backend_args) as path:
        coco = mmengine.load(path, file_format='json')
    classes = {cat['id'] for cat in coco['categories'] if cat['name'] in dataset.metainfo['classes']}
    boxes: dict[int, list] = {image['id']: [] for image in coco['images']}
    for ann in coco['annotations']:
        if ann['category_id'] in classes and not ann.get('iscrowd') and ann['image_id'] in boxes:
            x, y, width, height = ann['bbox']
            boxes[ann['image_id']].append([x, y, x + width, y + height])
    for image in coco['images']:
        yield boxes[image['id']], (image['height'], image['width'])


def _loaded_images(dataset: BaseDataset) -> Iterator[tuple[list, tuple[int, int]]]:
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = [instance['bbox'] for instance in info['instances'] if not instance.get('ignore_flag')]
        yield boxes, (info['height'], info['width'])


def base_datasets(dataset: object) -> Iterator[BaseDataset]:
    """The data sets inside wrappers such as ``ConcatDataset`` and ``RepeatDataset``."""
    if isinstance(dataset, BaseDataset):
        yield dataset
    elif dataset is not None:
        for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
            yield from base_datasets(part)


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Checks a training before its first iteration and reports what it leaves out.

    * Before: every loss must fit its head: the ``target_stds`` of a ``loss_bbox`` that takes its IoU from deltas, the
      IoU for a ``loss_cls`` that needs it (a stock head cannot check that itself).
    * Before: images without boxes, boxes of zero size and boxes outside their image are counted and logged. That is a
      report: an annotation file that it cannot read is no reason to stop.
    * After each epoch (or ``interval`` iterations): samples that a balanced localisation loss left out, if any.

    Args:
        count: Count the boxes of the training set; reading a large annotation file again takes seconds.
        interval: Iterations between two reports of an iteration-based training.
    """

    priority = 'LOW'

    def __init__(self, count: bool = True, interval: int = 500) -> None:
        self.count = count
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Check the heads, count the boxes."""
        check_heads(runner.model)
        if self.count and is_main_process():
            for dataset in base_datasets(runner.train_dataloader.dataset):
                self._report_counts(runner, dataset)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report the samples left out since the last report."""
        self._report_left_out(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """The same in an iteration-based training, which has one endless epoch."""
        if self.every_n_train_iters(runner, self.interval):
            self._report_left_out(runner)

    def _report_counts(self, runner: Runner, dataset: BaseDataset) -> None:
        try:
            counts = count_boxes(dataset)
        except Exception as error:
            runner.logger.info(f'{dataset.ann_file}: boxes not counted, {type(error).__name__}: {error}')
            return
        if not counts.boxes:
            raise ValueError(
                f'{dataset.ann_file} (train_dataloader.dataset.ann_file) holds no box of the classes '
                f'{dataset.metainfo["classes"]}: set train_dataloader.dataset.metainfo=dict(classes=...) to the names '
                'in the annotations'
            )
        runner.logger.info(
            f'{dataset.ann_file}: {counts.images} images, {counts.without_boxes} without boxes; {counts.boxes} boxes, '
            f'of which {counts.zero_size} of zero size and {counts.outside} outside their image are left out'
        )

    def _report_left_out(self, runner: Runner) -> None:
        for name, module in runner.model.named_modules():
            left_out = int(getattr(module, 'num_left_out', 0))
            if left_out:
                runner.logger.warning(
                    f'{name} left out {left_out} samples whose deltas are not finite: a ground-truth box of zero '
                    'size, or predictions that diverge'
                )
                module.num_left_out = 0

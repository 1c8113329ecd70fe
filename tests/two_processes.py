"""Two gloo processes on this machine, and what the tests have them compute; importable by the processes themselves."""

from __future__ import annotations

import json
import socket
import time
from datetime import timedelta

import torch
from head_cases import (
    BALANCED_L1,
    BOXES,
    FOVEA,
    FOVEA_FOCAL,
    LABELS,
    RCNN,
    RCNN_STDS,
    RETINA,
    SSD,
    SSD_STDS,
    C,
    build,
    features,
    instances,
    metas,
    roi_targets,
)
from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper

import harmonic  # noqa: F401  registers the heads

FOCAL = dict(type='IoUBalancedFocalLoss', use_sigmoid=True)
SOFTMAX = dict(type='IoUBalancedCrossEntropyLoss')
HEADS = {
    'retina': dict(RETINA, type='IoUBalancedRetinaHead', loss_cls=FOCAL, loss_bbox=BALANCED_L1),
    'ssd': dict(SSD, type='IoUBalancedSSDHead', loss_cls=SOFTMAX, loss_bbox=dict(BALANCED_L1, **SSD_STDS)),
    'fovea': dict(FOVEA, type='IoUBalancedFoveaHead', loss_cls=dict(FOCAL, **FOVEA_FOCAL), loss_bbox=BALANCED_L1),
    'rcnn': dict(RCNN, type='IoUBalancedShared2FCBBoxHead', loss_cls=SOFTMAX, loss_bbox=dict(BALANCED_L1, **RCNN_STDS)),
    'harmonic retina': dict(RETINA, type='HarmonicRetinaHead'),
    'harmonic ssd': dict(SSD, type='HarmonicSSDHead'),
    'harmonic fovea': dict(FOVEA, type='HarmonicFoveaHead'),
    'harmonic rcnn': dict(RCNN, type='HarmonicShared2FCBBoxHead'),
}
EMPTY = [[]]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def run_in_two(function, folder, seconds=240):
    """Call ``function(rank)`` in two processes with a process group.

    Args:
        function: Of a module that the processes can import.
        folder: Where they may write.
        seconds: A process that takes longer hangs: it is killed, and the test fails.

    Returns:
        What each has returned.
    """
    context = torch.multiprocessing.get_context('spawn')
    processes = [context.Process(target=_process, args=(function, rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        deadline = time.monotonic() + seconds
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))
        assert [process.exitcode for process in processes] == [0, 0]  # None: it hangs
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f'{rank}.pt', weights_only=False) for rank in range(2)]


def _process(function, rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.save(function(rank), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


# ----------------------------------------------------------------------------- one batch over two processes

SHARED = ('retina', 'ssd', 'fovea', 'rcnn')


def synced(name, sync, normalize=False):
    """The head with its losses normalised over all processes or not."""
    cfg = HEADS[name]
    return dict(cfg, loss_cls=dict(cfg['loss_cls'], sync=sync), loss_bbox=dict(cfg['loss_bbox'], normalize=normalize))


def batch_losses(cfg, images, boxes=BOXES, labels=LABELS):
    """Losses of some of two images, and their gradient at all parameters, in float64."""
    head = build(cfg).double()
    images = list(images)
    if 'roi_feat_size' in cfg:
        losses = roi_batch(head, images, with_positives=[len(part) > 0 for part in boxes])
    else:
        torch.manual_seed(2)
        feats = [level[images].double() for level in features()]
        gts = instances([boxes[i] for i in images], [labels[i] for i in images])
        for gt in gts:
            gt.bboxes = gt.bboxes.double()
        losses = head.loss_by_feat(*head(feats), gts, metas(gts))
    sums = {key: sum(value) if isinstance(value, list) else value for key, value in losses.items() if 'loss' in key}
    grads = torch.autograd.grad(sum(sums.values()), list(head.parameters()))
    return {key: value.detach() for key, value in sums.items()}, grads


def roi_batch(head, images, with_positives):
    """Losses of the RoIs of some of two images."""
    torch.manual_seed(3)
    feats = torch.randn(7, 4, 2, 2, dtype=torch.float64)
    rois, labels, label_weights, *of_boxes = roi_targets(head)
    rows = torch.cat([(rois[:, 0] == image).nonzero().squeeze(1) for image in images])
    for image in range(2):
        if not with_positives[image]:
            labels[rois[:, 0] == image] = C
    of_boxes = [(tensor * (labels < C)[:, None]).double() for tensor in of_boxes]
    targets = rois.double(), labels, label_weights.double(), *of_boxes
    return head.loss(*head(feats[rows]), *(tensor[rows] for tensor in targets))


CASES = [
    (name, sync, normalize, positives)
    for name in SHARED
    for sync, normalize in ((True, False), (True, True), (False, False))
    for positives in ('both', 'first')
]


def case_losses(case, images):
    name, sync, normalize, positives = case
    boxes, labels = (BOXES, LABELS) if positives == 'both' else (BOXES[:1] + EMPTY, LABELS[:1] + EMPTY)
    return batch_losses(synced(name, sync, normalize), images, boxes, labels)


def losses_of_my_image(rank):
    return {case: case_losses(case, [rank]) for case in CASES}


# ------------------------------------------------------------------ training where one process has no positives


class Toy(BaseModel):
    """A head on features that are given; the second process has no ground truth."""

    def __init__(self, cfg):
        super().__init__()
        self.head = build(cfg)
        self.is_rcnn = 'roi_feat_size' in cfg

    def data_preprocessor(self, data, training=False):
        return data

    def forward(self, rank, mode):
        if self.is_rcnn:
            feats = torch.randn(7, 4, 2, 2, generator=torch.Generator().manual_seed(rank))
            return self.head.loss(*self.head(feats), *roi_targets(self.head, with_positives=rank == 0))
        gts = instances() if rank == 0 else instances(EMPTY * 2, EMPTY * 2)
        return self.head.loss_by_feat(*self.head(features()), gts, metas(gts))


def steps_of_each_head(rank):
    """Logs of two steps of SGD, the parameters that had no gradient, and the state after them."""
    found = {}
    for name in HEADS:
        cfg = synced(name, True) if name in SHARED else HEADS[name]
        model = MMDistributedDataParallel(Toy(cfg), broadcast_buffers=False)
        optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        logs = [model.train_step(dict(rank=rank), optim) for _ in range(2)]
        logs = [{key: float(value) for key, value in log.items()} for log in logs]
        # SGD has a momentum of what had a gradient.
        missing = [key for key, value in model.named_parameters() if value not in optim.optimizer.state]
        found[name] = dict(logs=logs, missing=missing, state=model.state_dict())
    return found


# ----------------------------------------------------------------------------- a hook for whole trainings


@HOOKS.register_module()
class LossRecorder(Hook):
    """Writes what this process has seen and logged to ``losses_<rank>.json`` in the work folder."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.rows = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        images = [sample.img_id for sample in data_batch['data_samples']]
        self.rows.append(dict(images=images, **{key: float(value) for key, value in outputs.items()}))

    def after_train(self, runner):
        with open(f'{runner.work_dir}/losses_{get_rank()}.json', 'w') as file:
            json.dump(self.rows, file)

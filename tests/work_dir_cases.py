"""Work directories in the form that mmengine gives them; the lines are those of real trainings and tests."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
A2 = {
    'A2.1': 'retinanet_r50_fpn_smooth-l1-2xb6-1000x600-1x_coco',
    'A2.2': 'retinanet_r50_fpn_iou-balanced-cls-2xb6-1000x600-1x_coco',
    'A2.3': 'retinanet_r50_fpn_iou-balanced-loc-2xb6-1000x600-1x_coco',
    'A2.4': 'retinanet_r50_fpn_iou-balanced-2xb6-1000x600-1x_coco',
}
LOG = """\
2026/11/21 15:57:18 - mmengine - INFO -
    Distributed launcher: pytorch
    Distributed training: True
    GPU number: {gpus}
2026/11/21 15:57:22 - mmengine - INFO - /data/{name}/train.json: {images} images, 0 without boxes; 58 boxes, \
of which 0 of zero size and 0 outside their image are left out
2026/11/21 15:57:22 - mmengine - INFO - Epoch(train)  [1][  50/7330]  lr: 3.7500e-06  eta: 0:00:01  loss: 1.7838
2026/11/21 15:57:23 - mmengine - INFO - GPU number: 99
"""
TEST_LOG = """\
2026/11/22 10:00:00 - mmengine - INFO -
    GPU number: {gpus}
2026/11/22 10:00:09 - mmengine - INFO - Epoch(test)  [  50/{batches}]    eta: 0:00:01  time: 0.0459  data_time: 0.0057
2026/11/22 10:09:00 - mmengine - INFO - Epoch(test)  [{batches}/{batches}]    eta: 0:00:00  time: 0.0459
"""
METRICS = {'mAP': 0.35, 'mAP_50': 0.545, 'mAP_75': 0.372, 'mAP_s': -1.0, 'mAP_m': 0.39, 'mAP_l': 0.481, 'mAP_85': 0.2}


@cache
def _content(path: Path) -> dict:
    return Config.fromfile(path, import_custom_modules=False).to_dict()


def row_config(stem: str, folder: str = 'iou_balanced/coco') -> Config:
    """A config of the repository, read once; the copy may be changed."""
    return Config(deepcopy(_content(ROOT / 'configs' / folder / f'{stem}.py')))


def add_training(
    folder: Path, cfg: Config, time: str = '20261121_155718', epochs: int = 12, gpus: int = 2, images: int = 118287
) -> None:
    """A training that has come so far, with a checkpoint and a validation of each epoch."""
    session = _session(folder, cfg, time)
    unit = 'iter' if 'max_iters' in cfg.train_cfg else 'epoch'
    lines = []
    for epoch in range(1, epochs + 1):
        lines.append({'lr': 0.01, 'loss': 1.78, 'time': 0.37, 'epoch': epoch, 'iter': 50 * epoch, 'step': 50 * epoch})
        lines.append({'coco/bbox_mAP': round(epoch / 100, 3), 'coco/bbox_mAP_50': 0.3, 'time': 0.1, 'step': epoch})
    (session / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    (session / f'{time}.log').write_text(LOG.format(gpus=gpus, images=images, name='coco'))
    if epochs:
        add_checkpoint(folder, f'{unit}_{epochs}.pth')


def add_checkpoint(folder: Path, name: str) -> None:
    (folder / name).touch()
    (folder / 'last_checkpoint').write_text(f'/where/it/was/{folder.name}/{name}')


def add_test(
    folder: Path,
    cfg: Config,
    checkpoint: str = 'epoch_12.pth',
    time: str = '20261122_100000',
    metrics: dict[str, float] | None = None,
    prefix: str = 'coco',
    of: str = '',
    images: int = 5000,
) -> None:
    """A test with two processes, of a checkpoint in this folder or in another one.

    An empty dict of metrics is what mmengine leaves when no box was detected.
    """
    session = _session(folder, Config(dict(cfg, load_from=f'/where/it/was/{of or folder.name}/{checkpoint}')), time)
    values = {f'{prefix}/bbox_{name}': value for name, value in (METRICS if metrics is None else metrics).items()}
    (session / f'{time}.json').write_text(json.dumps({**values, 'data_time': 0.01, 'time': 0.3}))
    (session / f'{time}.log').write_text(TEST_LOG.format(gpus=2, batches=images // 2))


def as_tested_with_tta(cfg: Config) -> Config:
    """What mmdet's test.py --tta makes of a config."""
    run = Config(deepcopy(cfg.to_dict()))
    run.model = dict(type='DetTTAModel', tta_cfg=run.tta_model.tta_cfg, module=run.model)
    run.test_dataloader.dataset.pipeline = run.tta_pipeline
    return run


def _session(folder: Path, cfg: Config, time: str) -> Path:
    session = folder / time
    (session / 'vis_data').mkdir(parents=True)
    # mmengine formats this file, which takes a second; what it says is the same.
    values = '\n'.join(f'{name} = {value!r}' for name, value in cfg.to_dict().items())
    (session / 'vis_data' / 'config.py').write_text(f'{values}\n')
    return session

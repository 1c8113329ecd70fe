"""Stand-ins for tools/train.py and its kin that write, in no time, what mmdet's would leave."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

CONFIG = """\
model = dict(type='Detector')
train_cfg = dict(max_epochs=3)
test_pipeline = []
train_dataloader = dict(batch_size=2, dataset=dict(type='CocoDataset', ann_file='train.json', pipeline=[]))
test_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='val.json', pipeline=test_pipeline))
test_evaluator = dict(type='CocoMetric', ann_file='val.json', metric='bbox')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
"""
#: Epoch by epoch, as mmengine does: resumes, and may be told by a file in the work directory to fail or to go slowly.
TRAIN = """\
import json, os, sys, time
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index('--work-dir') + 1])
folder.mkdir(parents=True, exist_ok=True)
with (folder / 'calls').open('a') as stream:
    named = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'PORT')
    variables = {name: os.environ.get(name) for name in named}
    stream.write(json.dumps(['train', arguments, variables, sys.executable]) + '\\n')
last = folder / 'last_checkpoint'
resumed = '--resume' in arguments
done = int(Path(arguments[arguments.index('--resume') + 1]).stem.rpartition('_')[2]) if resumed else 0
session = folder / f'20260101_00000{done}'
(session / 'vis_data').mkdir(parents=True, exist_ok=True)
(session / 'vis_data' / 'config.py').write_text(f'_base_ = {arguments[0]!r}\\nresume = {resumed}\\n')
if (folder / 'break').is_file():
    (session / 'vis_data' / 'scalars.json').write_text('{"lr": 0.0\\n')
for epoch in range(done + 1, 4):
    print(f'mmengine - INFO - Epoch(train)   [{epoch}][ 50/100]  lr: 1e-2  eta: 0:00:0{epoch}  loss: 1', flush=True)
    with (session / 'vis_data' / 'scalars.json').open('a') as stream:
        stream.write(json.dumps({'loss': 1.0, 'step': epoch}) + '\\n')
    if (folder / 'fail').is_file() and epoch == 2:
        sys.exit('no such thing')
    if (folder / 'slow').is_file():
        time.sleep(600 if epoch == 2 else 0.2)
    (folder / f'epoch_{epoch}.pth').touch()
    last.write_text(str(folder / f'epoch_{epoch}.pth'))
"""
TEST = """\
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index('--work-dir') + 1])
folder.mkdir(parents=True, exist_ok=True)
with (folder / 'calls').open('a') as stream:
    stream.write(json.dumps(['test', arguments, {}]) + '\\n')
if not (folder / 'silent').is_file():
    session = folder / '20260102_000000'
    (session / 'vis_data').mkdir(parents=True, exist_ok=True)
    (session / 'vis_data' / 'config.py').write_text(f'_base_ = {arguments[0]!r}\\nload_from = {arguments[1]!r}\\n')
    if '--tta' in arguments:
        with (session / 'vis_data' / 'config.py').open('a') as stream:
            stream.write('model = dict(_delete_=True, tta_cfg=dict(max_per_img=100), module=_base_.model)\\n')
    (session / '20260102_000000.json').write_text('{"coco/bbox_mAP": 0.3}')
for argument in arguments:
    if argument.startswith('test_evaluator.outfile_prefix='):
        result = Path(argument.partition('=')[2] + '.bbox.json')
        result.write_text('[')
        if (folder / 'fail').is_file():
            sys.exit('killed while it wrote')
        result.write_text('[]')
        Path(argument.partition('=')[2] + '.segm.json').write_text('[]')
"""
DIST = """\
[[ {name} == train ]] && at=2 || at=3
exec python "$(dirname "$0")/{name}.py" "${{@:1:at-1}}" "${{@:at+1}}" --launcher pytorch
"""


def write_config(path: Path) -> Config:
    """A config for them, three epochs long; returns what it holds."""
    path.write_text(CONFIG)
    return Config.fromfile(path)


def write_decoy_python(folder: Path) -> Path:
    """A python that is found on the PATH and is the wrong one; returns its folder."""
    folder.mkdir()
    (folder / 'python').write_text('#!/bin/sh\necho the wrong python >&2\nexit 9\n')
    (folder / 'python').chmod(0o755)
    return folder


def write_fake_tools(folder: Path) -> Path:
    """Write the stand-ins; returns their folder."""
    folder.mkdir(parents=True)
    for name, text in (('train', TRAIN), ('test', TEST)):
        (folder / f'{name}.py').write_text(text)
        (folder / f'dist_{name}.sh').write_text(DIST.format(name=name))
    return folder

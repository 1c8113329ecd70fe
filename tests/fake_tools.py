"""Stand-ins for tools/train.py and its kin that write, in no time, what mmdet's would leave."""

from __future__ import annotations

from pathlib import Path

#: Epoch by epoch, as mmengine does: resumes, and may be told by a file in the work directory to fail or to go slowly.
TRAIN = """\
import json, os, sys, time
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index('--work-dir') + 1])
folder.mkdir(parents=True, exist_ok=True)
with (folder / 'calls').open('a') as stream:
    named = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'PORT')
    stream.write(json.dumps(['train', arguments, {name: os.environ.get(name) for name in named}]) + '\\n')
last = folder / 'last_checkpoint'
done = int(last.read_text()[:-4].rpartition('_')[2]) if '--resume' in arguments else 0
session = folder / f'20260101_00000{done}'
(session / 'vis_data').mkdir(parents=True, exist_ok=True)
(session / 'vis_data' / 'config.py').write_text('load_from = None\\n')
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
    (session / 'vis_data' / 'config.py').write_text(f'load_from = {arguments[1]!r}\\n')
    (session / '20260102_000000.json').write_text('{"coco/bbox_mAP": 0.3}')
for argument in arguments:
    if argument.startswith('test_evaluator.outfile_prefix='):
        Path(argument.partition('=')[2] + '.bbox.json').write_text('[]')
"""
DIST = """\
[[ {name} == train ]] && at=2 || at=3
exec python "$(dirname "$0")/{name}.py" "${{@:1:at-1}}" "${{@:at+1}}" --launcher pytorch
"""


def write_fake_tools(folder: Path) -> Path:
    """Write the stand-ins; returns their folder."""
    folder.mkdir(parents=True)
    for name, text in (('train', TRAIN), ('test', TEST)):
        (folder / f'{name}.py').write_text(text)
        (folder / f'dist_{name}.sh').write_text(DIST.format(name=name))
    return folder

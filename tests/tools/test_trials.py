"""tools/overfit.py and tools/step_time.py as a user runs them, on a RefineDet of few channels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from refinedet_cases import CONFIG_TEXT

from balanced_det.datasets import make_digit_scenes

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # each process imports mmdet, which takes seconds

CONFIG = """
train_dataloader = dict(dataset=dict(data_root='{data}/'))
val_dataloader = dict(dataset=dict(data_root='{data}/'))
val_evaluator = dict(ann_file='{data}/annotations/val.json')
default_hooks = dict(checkpoint=dict(by_epoch=False))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('trials')
    data = make_digit_scenes(folder / 'digits', num_train=6, num_val=2)
    path = folder / 'refinedet_tiny.py'
    path.write_text((CONFIG_TEXT + CONFIG).format(base=ROOT / 'configs' / '_base_', num_classes=1, data=data))
    return path


def run(tool, *arguments):
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)


def test_overfit_stops_at_the_target_and_resumes_below_it(config):
    out = config.parent / 'out'
    arguments = (config, '--images', 4, '--interval', 1, '--work-dir', out)
    below = run('overfit.py', *arguments, '--epochs', 2, '--target', 1.1)
    assert below.returncode == 1
    assert 'AP50 is below the target of 1.1: give it more --epochs' in below.stderr
    assert 'on its 4 images after 4 iterations' in below.stdout
    reached = run('overfit.py', *arguments, '--epochs', 9, '--target', -1, '--resume')
    assert reached.returncode == 0, reached.stderr
    assert 'on its 4 images after 6 iterations' in reached.stdout  # the first evaluation reaches it
    ious = re.findall(r'([01]\.\d+)', reached.stdout[reached.stdout.index('IoU of matched') :])
    assert len(ious) == 4
    assert 0.5 <= float(ious[0]) <= 1  # matched anchors are those of IoU 0.5 and more

    written = Config.fromfile(out / config.name)
    train, val = written.train_dataloader.dataset, written.val_dataloader.dataset
    assert (train.ann_file, train.indices) == (val.ann_file, val.indices) == ('annotations/train.json', 4)
    assert 'test_mode' not in val  # which would leave in the images without boxes
    # The boxes are loaded before the image is resized, and nothing is random.
    steps = [step.type for step in train.pipeline]
    assert steps == ['LoadImageFromFile', 'LoadAnnotations', 'FilterAnnotations', 'Resize', 'PackDetInputs']
    assert [step.type for step in val.pipeline] == ['LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs']


def test_step_time_compares_with_the_first_config(config):
    done = run('step_time.py', config, config, '--size', 64, '--rounds', 3, '--boxes', 2, '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    machine, head, _, *rows = done.stdout.strip().splitlines()[-5:]
    assert 'cpu, 1 thread(s)' in machine
    assert '64 x 64, 2 images, 2 boxes each, 3 rounds' in machine
    names = [cell.strip() for cell in head.strip('|').split('|')]
    first, second = ([cell.strip() for cell in row.strip('|').split('|')] for row in rows)
    assert first[-1] == '1.00 (1.00 to 1.00)'
    assert re.fullmatch(r'\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)', second[-1])
    parts = dict(zip(names, first))
    assert all(float(parts[name]) >= 0 for name in names[1:-1])
    # The parts make up the step.
    assert sum(float(parts[name]) for name in names[1:-2]) == pytest.approx(float(parts['step']), rel=0.3, abs=0.01)

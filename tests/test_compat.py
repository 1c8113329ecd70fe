"""The check of the installed mmdet line, mmdet's scripts, and loading mmengine's checkpoints."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner

from balanced_det import compat

ONEDL = {'onedl-mmdetection': '3.5.1', 'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6'}
OPENMMLAB = {'mmdet': '3.3.0', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


@pytest.fixture
def pretend_installed(monkeypatch):
    """Make the metadata, and the import system, know just these distributions."""

    def pretend(distributions: dict[str, str], importable: tuple[str, ...] = ()) -> None:
        def version(name: str) -> str:
            if name not in distributions:
                raise importlib.metadata.PackageNotFoundError(name)
            return distributions[name]

        monkeypatch.setattr(importlib.metadata, 'version', version)
        monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object() if name in importable else None)

    return pretend


@pytest.mark.parametrize(('distributions', 'line'), [(ONEDL, 'onedl'), (OPENMMLAB, 'openmmlab')])
def test_line_is_that_of_the_distribution(pretend_installed, distributions, line):
    pretend_installed(distributions)
    assert compat.installed_line() == line


def test_line_of_this_environment():
    assert compat.installed_line() in compat.LINE_MMDET


@pytest.mark.parametrize(('engine', 'line'), [('onedl-mmengine', 'onedl'), ('mmengine', 'openmmlab')])
def test_mmdet_on_pythonpath_without_metadata(pretend_installed, engine, line):
    pretend_installed({engine: '0.10.10', 'mmcv': '2.1.0'}, importable=('mmdet',))
    assert compat.installed_line() == line


def test_maintained_mmdet_takes_a_newer_mmcv_of_either_name(pretend_installed):
    pretend_installed({**ONEDL, 'onedl-mmcv': '2.4.0'})
    assert compat.installed_line() == 'onedl'


@pytest.mark.parametrize(
    ('distributions', 'message'),
    [
        pytest.param({}, 'needs `mmdet`, which is not installed', id='nothing'),
        pytest.param({'mmdet': '3.3.0', 'mmengine': '0.10.7'}, 'needs `mmcv`', id='no mmcv'),
        pytest.param({'mmdet': '3.3.0', 'mmcv': '2.1.0'}, 'needs `mmengine`', id='no mmengine'),
        pytest.param({**ONEDL, **OPENMMLAB}, 'both installed', id='both lines'),
        pytest.param({**ONEDL, 'mmcv': '2.1.0'}, 'onedl-mmcv 2.3.6 and mmcv 2.1.0 are both', id='two mmcv'),
        pytest.param({**OPENMMLAB, 'mmcv-lite': '2.1.0'}, 'mmcv 2.1.0 and mmcv-lite 2.1.0', id='lite beside full'),
        pytest.param({**OPENMMLAB, 'mmcv': '2.2.0'}, 'mmcv 2.2.0 does not go with mmdet 3.3.0', id='mmcv 2.2'),
        pytest.param(
            {'mmdet': '3.3.0', 'mmengine': '0.10.7', 'onedl-mmcv': '2.3.6'},
            'onedl-mmcv 2.3.6 does not go with mmdet 3.3.0',
            id='original mmdet with the other line',
        ),
        pytest.param({**OPENMMLAB, 'mmdet': '2.28.2'}, 'mmdet 2.28.2 is installed', id='mmdet 2'),
        pytest.param({'mmdet': '3.3.0', 'mmengine': '0.10.7', 'mmcv-full': '1.7.2'}, 'mmcv-full 1.7.2', id='mmcv 1'),
    ],
)
def test_unusable_installation_is_refused_with_a_remedy(pretend_installed, distributions, message):
    pretend_installed(distributions)
    with pytest.raises(ImportError) as error:
        compat.installed_line()
    assert message in str(error.value)
    assert 'pip install' in str(error.value)
    assert 'tools/setup_env.sh' in str(error.value)


def test_both_lines_are_removed_before_one_is_installed(pretend_installed):
    pretend_installed({**ONEDL, **OPENMMLAB})
    with pytest.raises(ImportError, match=r'pip uninstall -y .*onedl-mmdetection mmdet'):
        compat.installed_line()


@pytest.mark.parametrize('name', ['train.py', 'test.py'])
def test_script_of_the_installed_mmdet(name):
    script = compat.mmdet_script(name)
    assert script.name == name
    assert 'Runner' in script.read_text()


def test_script_of_an_editable_mmdet_lies_beside_the_package(tmp_path, monkeypatch):
    make_package(tmp_path, monkeypatch)
    script = tmp_path / 'tools' / 'train.py'
    script.parent.mkdir()
    script.touch()
    assert compat.mmdet_script('train.py') == script


def test_missing_script_says_where_it_was_looked_for(tmp_path, monkeypatch):
    make_package(tmp_path, monkeypatch)
    with pytest.raises(FileNotFoundError, match=r'mmdet/\.mim/tools/train\.py nor .*pip install') as error:
        compat.mmdet_script('train.py')
    assert str(tmp_path) in str(error.value)


def make_package(folder: Path, monkeypatch) -> None:
    (folder / 'mmdet').mkdir()
    spec = importlib.util.spec_from_loader('mmdet', loader=None, is_package=True)
    spec.submodule_search_locations = [str(folder / 'mmdet')]
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec if name == 'mmdet' else None)


def test_checkpoint_of_a_runner_loads_and_resumes(tmp_path):
    first = make_runner(tmp_path, epochs=1)
    first.train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert checkpoint['message_hub']['log_scalars']['train/loss'].current() > 0

    second = make_runner(tmp_path, epochs=2, resume=True)
    second.train()
    assert (second.epoch, second.iter) == (2, 8)


def test_checkpoint_with_numpy_values_of_every_common_kind_loads(tmp_path):
    kinds = ('int8', 'int64', 'uint8', 'float16', 'float32', 'float64', '<U3', 'bool')
    saved = {
        'scalar': np.float64(0.5),
        'arrays': [np.array([0, 1]).astype(kind) for kind in kinds],
        'slice': slice(1, 2),
    }
    torch.save(saved, tmp_path / 'x.pth')
    loaded = torch.load(tmp_path / 'x.pth', weights_only=True)
    assert loaded['scalar'] == 0.5
    assert loaded['slice'] == slice(1, 2)
    for before, after in zip(saved['arrays'], loaded['arrays']):
        assert before.dtype == after.dtype
        assert (before == after).all()


class Attack:
    """Pickles as `getattr(HistoryBuffer, '__init__')`, the first link of a chain to arbitrary globals."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


class Call:
    """Pickles as a call of `exec`."""

    def __reduce__(self):
        return exec, ('raise AssertionError("executed")',)


@pytest.mark.parametrize('content', [Attack(), Call()])
def test_nothing_else_is_let_in(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'x.pth', weights_only=True)


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        return {'loss': self.fc(x).square().mean() + 1}


def make_runner(folder: Path, epochs: int, resume: bool = False):
    return Runner(
        Line(),
        str(folder),
        train_dataloader={
            'dataset': [{'x': torch.ones(2)} for _ in range(8)],
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'batch_size': 2,
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        param_scheduler={'type': 'LinearLR', 'start_factor': 0.5, 'by_epoch': False, 'end': 4},
        default_scope='mmengine',
        experiment_name=f'{folder.name}-{epochs}',
        resume=resume,
    )

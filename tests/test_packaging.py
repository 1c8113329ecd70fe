"""What pip and mim find in a wheel, in a source distribution and in an editable build."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ('train.py', 'test.py', 'dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh')
PACKAGES = ('balanced_det', 'harmonic', 'iou_balanced')


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A copy of the tracked and the new files, so that building leaves nothing in the checkout."""
    if not (ROOT / '.git').exists():
        pytest.skip('the list of files comes from git')
    folder = tmp_path_factory.mktemp('tree')
    listed = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split('\0')):
        source = ROOT / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read_bytes())
    # A left-over of an earlier build, which must not get into a wheel.
    (folder / 'build' / 'lib' / 'balanced_det').mkdir(parents=True)
    (folder / 'build' / 'lib' / 'balanced_det' / 'stale.json').write_text('{}')
    return folder


def build_wheel(source: Path, folder: Path) -> Path:
    run(
        *(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', folder, source),
        cwd=folder,
    )
    return next(folder.glob('mmdet_balanced-*.whl'))


@pytest.fixture(scope='module')
def wheel(tree, tmp_path_factory):
    return build_wheel(tree, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def sdist(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sdist')
    run(sys.executable, '-m', 'build', '--sdist', '--no-isolation', '--outdir', folder, tree, cwd=folder)
    return next(folder.glob('mmdet_balanced-*.tar.gz'))


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def config_names() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('*.py')}


def test_wheel_has_mim_folder_for_tools_and_configs(wheel):
    names = set(names_in(wheel))
    assert {f'balanced_det/.mim/tools/{name}' for name in TOOLS} <= names
    assert {f'balanced_det/.mim/{name}' for name in config_names()} <= names
    assert 'balanced_det/.mim/model-index.yml' in names


def test_mim_folder_is_in_one_package_only(wheel):
    assert {name.split('/')[0] for name in names_in(wheel) if '.mim' in name} == {'balanced_det'}


def test_wheel_has_the_three_packages_and_nothing_else(wheel):
    tops = {name.split('/')[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith('.dist-info')} == set(PACKAGES)
    assert not [
        name for name in names_in(wheel) if 'stale' in name or '__pycache__' in name or 'test_' in name.split('/')[-1]
    ]


def test_record_begins_with_the_package_that_has_mim(wheel):
    """onedl-mim takes the first path of RECORD, as pip sorts it, for the package's folder."""
    assert min(names_in(wheel)).startswith('balanced_det/')


def test_wheel_has_no_console_scripts(wheel):
    """They would come first in RECORD."""
    assert not [name for name in names_in(wheel) if name.endswith('entry_points.txt') or '.data/' in name]


def test_wheel_requires_nothing_unconditionally(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        lines = archive.read(name).decode().splitlines()
    requirements = [line for line in lines if line.startswith('Requires-Dist')]
    assert all('extra ==' in line for line in requirements)
    extras = {line.split()[1] for line in lines if line.startswith('Provides-Extra')}
    assert extras >= {'onedl', 'openmmlab', 'tests', 'plots'}
    assert 'Name: mmdet-balanced' in lines
    assert 'License-File: LICENSE' in lines


def test_wheel_of_the_source_distribution_is_the_same(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {'setup.py', 'pyproject.toml', 'LICENSE', 'README.md', 'model-index.yml', 'tools/train.py'} <= names
    assert config_names() <= names
    assert sorted(names_in(build_wheel(sdist, tmp_path))) == sorted(names_in(wheel))


def test_editable_build_links_the_mim_folder(tree, tmp_path):
    """Links, so that a new config is there without another install; and no trace of them in a later wheel."""
    run(
        *(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '--target', tmp_path / 'site'),
        *('--editable', tree),
        cwd=tmp_path,
    )
    mim = tree / 'balanced_det' / '.mim'
    for name in ('tools', 'configs', 'model-index.yml'):
        assert (mim / name).is_symlink()
        assert not os.path.isabs(os.readlink(mim / name))
        assert (mim / name).resolve() == tree / name
    names = names_in(build_wheel(tree, tmp_path))
    assert len(names) == len(set(names))
    assert f'balanced_det/.mim/tools/{TOOLS[0]}' in names


def test_model_index_lists_existing_metafiles():
    yaml = pytest.importorskip('yaml')
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for name in index['Import']:
        assert (ROOT / name).is_file()


def test_config_names_are_unique():
    """`mim train mmdet-balanced NAME` searches by base name."""
    names = [Path(name).name for name in config_names()]
    assert len(names) == len(set(names))

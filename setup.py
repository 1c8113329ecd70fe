"""Puts `.mim` into the package; everything else about the distribution is in pyproject.toml.

`mim` and mmengine look for `tools/`, `configs/` and `model-index.yml` under `<package>/.mim`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_ENTRIES = ('tools', 'configs', 'model-index.yml')
MIM_FOLDER = Path('balanced_det', '.mim')
JUNK = shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*')


class BuildWithMim(build_py):
    """`build_py` that also provides `balanced_det/.mim`: links in an editable build, copies in any other."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            link_mim()
            return
        # Files deleted or renamed since the last build lie in build/ and would get into the wheel.
        for package in {name.split('.')[0] for name in self.packages}:
            shutil.rmtree(Path(self.build_lib) / package, ignore_errors=True)
        super().run()
        copy_mim(Path(self.build_lib) / MIM_FOLDER)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        folder = Path(self.build_lib) / MIM_FOLDER
        return outputs + [str(path) for path in sorted(folder.rglob('*')) if path.is_file()]


def link_mim() -> None:
    """Make `balanced_det/.mim` of the source tree point at the entries beside this file."""
    folder = ROOT / MIM_FOLDER
    folder.mkdir(exist_ok=True)
    for name in MIM_ENTRIES:
        link = folder / name
        if link.is_symlink():
            link.unlink()
        # Relative, so that the checkout can be moved.
        link.symlink_to(os.path.relpath(ROOT / name, folder))


def copy_mim(folder: Path) -> None:
    """Copy the entries beside this file into `folder`."""
    folder.mkdir(parents=True)
    for name in MIM_ENTRIES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=JUNK)
        else:
            shutil.copy2(source, folder / name)


setup(cmdclass={'build_py': BuildWithMim})

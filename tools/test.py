"""Evaluate a checkpoint: mmdet's own tools/test.py, with this plugin's components."""

from __future__ import annotations

import sys
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

from balanced_det import launch


def main() -> None:
    launch.run_mmdet('test.py')


if __name__ == '__main__':
    main()

"""Train a detector: mmdet's own tools/train.py, with this plugin's components and checks."""

from __future__ import annotations

import sys
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

from balanced_det import launch, preflight


def main() -> None:
    preflight.check_arguments(sys.argv[1:])
    launch.run_mmdet('train.py')


if __name__ == '__main__':
    main()

"""Files that are whole or not there, whatever interrupts the writing."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there; its folder must be."""
    part = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is whole or not there; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: dict) -> None:
    """Write a json file so that it is whole or not there; makes its folder."""
    write_text(Path(path), json.dumps(content, separators=(',', ':')) + '\n')

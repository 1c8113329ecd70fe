"""The config files of the repository, what their names say, and the parts of a config that the losses are."""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from balanced_det.preflight import walk

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
FILES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
TEST_DEV = [path for path in FILES if path.stem.endswith('_test-dev')]
LEAVES = [path for path in FILES if path not in TEST_DEV]
PAPER_FOLDERS = [CONFIGS / 'iou_balanced' / data for data in ('coco', 'voc', 'cityscapes')] + [
    CONFIGS / 'harmonic' / data for data in ('coco', 'voc')
]
OF_PAPERS = [path for path in LEAVES if path.parent in PAPER_FOLDERS]
TTA = [path for path in LEAVES if '-tta' in path.stem]

LOSS_WORDS = re.compile(
    r'smooth-l1'
    r'|iou-balanced(-(cls|loc|arm))?(-(eta|lambda)-[\d.]+)*'
    r'|harmonic(-(no-hiou|no-tc|detached))*(-(alpha|gamma)-[\d.]+)*'
)


def config_id(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def load(path: Path) -> Config:
    """A config that may be changed."""
    return copy.deepcopy(read(path))


def read(path: Path) -> Config:
    """A config that all share: each file is read once."""
    init_default_scope('mmdet')
    return _read(path)


@functools.cache
def _read(path):
    return Config.fromfile(path)


@dataclass(frozen=True)
class Name:
    """What the name of a config says.

    Attributes:
        detector: 'ssd', 'faster-rcnn'.
        size: Side of a fixed input, in pixels.
        backbone: 'r50', 'x101-32x4d', 'vgg16'; empty for mmdet's SSD, which does not name its VGG-16.
        fpn: Whether there is an FPN.
        losses: 'smooth-l1', 'iou-balanced-cls-eta-1.4', 'harmonic-no-hiou'; empty: the detector's own.
        settings: The other words, '2xb6-1000x600-1x'.
        data: 'coco', 'voc0712'.
    """

    detector: str
    size: int | None
    backbone: str
    fpn: bool
    losses: str
    settings: str
    data: str

    @classmethod
    def of(cls, path: Path) -> Name:
        model, *words, data = path.stem.removesuffix('_test-dev').split('_')
        detector, size = re.fullmatch(r'(\D+?)(\d*)', model).groups()
        backbone = words.pop(0) if words and re.fullmatch(r'r\d+|x\d+-\d+x\d+d|vgg\d+', words[0]) else ''
        fpn = words[:1] == ['fpn']
        training = '_'.join(words[fpn:])
        losses = LOSS_WORDS.match(training)
        losses = losses.group() if losses else ''
        settings = training.removeprefix(losses).removeprefix('-')
        return cls(detector, int(size) if size else None, backbone, fpn, losses, settings, data)

    @property
    def method(self) -> str:
        """'iou-balanced', 'harmonic', or 'stock'."""
        return next((method for method in ('iou-balanced', 'harmonic') if self.losses.startswith(method)), 'stock')

    def number(self, name: str) -> float | None:
        """A number behind its name: of 'eta' in 'iou-balanced-cls-eta-1.4' it is 1.4."""
        found = re.search(rf'-{name}-([\d.]+)', self.losses)
        return float(found.group(1)) if found else None

    @property
    def batch(self) -> tuple[int, int] | None:
        """GPUs and images on each of '2xb6'."""
        found = re.search(r'(\d+)xb(\d+)', self.settings)
        return (int(found.group(1)), int(found.group(2))) if found else None

    @property
    def scale(self) -> tuple[int, int] | None:
        """The input scale of '1000x600'."""
        found = re.search(r'\b(\d{3,4})x(\d{3,4})\b', self.settings)
        return (int(found.group(1)), int(found.group(2))) if found else None


def head(model):
    """The block that scores and regresses the final boxes."""
    return model.get('bbox_head') or model.roi_head.bbox_head


def without_losses(cfg: Config) -> dict:
    """A config without what a method may change: its losses, its hook, and the checkpoint to begin with."""
    rest = {key: copy.deepcopy(value) for key, value in cfg.items()}
    for key in ('type', 'loss_cls', 'loss_bbox', 'loss_joint'):
        head(rest['model']).pop(key, None)
    rest['custom_hooks'] = [hook for hook in rest['custom_hooks'] if hook['type'] != 'LocWeightCalibrationHook']
    for key in list(rest):
        if key == 'load_from' or key.startswith(('iou_balanced', 'harmonic')):  # the parts under configs/_base_/losses
            del rest[key]
    return rest


def scales(pipeline: list) -> list[tuple[int, int]]:
    """The scales of a pipeline, in order; of a test-time augmentation too."""
    found = []
    for _, step in walk(pipeline, ''):
        if step.get('type') in ('Resize', 'RandomResize', 'RandomChoiceResize'):
            several = step.get('scales') or step.scale
            found += several if isinstance(several[0], (list, tuple)) else [several]
    return [tuple(scale) for scale in found]

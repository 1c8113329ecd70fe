"""Time the training steps of several configs side by side, and say where the time goes.

Random images and boxes: no data is needed. The configs take turns, so that whatever slows the machine slows them all;
ratios are medians over the rounds, to the first config.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

PARTS = ('backbone', 'neck', 'transfer', 'arm_head', 'bbox_head')
EXAMPLE = """example:
  python tools/step_time.py configs/ssd_resnet_fpn/ssd300_r50_fpn_bccd.py configs/refinedet/refinedet320_r50_bccd.py \\
      --cfg-options model.bbox_head.num_classes=20 model.backbone.depth=101
"""


def main() -> None:
    args = parse_args()
    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    steps = [Step(path, args, device) for path in args.configs]
    for step in steps:  # warm-up
        step.run()
        step.seconds.clear()
    for number in range(args.rounds):
        for step in steps:
            step.run()
        print(f'round {number + 1} of {args.rounds}', file=sys.stderr)
    print(
        f'{device.type}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, {args.size} x {args.size}, '
        f'{args.batch_size} images, {args.boxes} boxes each, {args.rounds} rounds'
    )
    print(table(steps))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'configs', nargs='+', help='configs of one-stage detectors; the first is the base of the ratios'
    )
    parser.add_argument('--size', type=int, default=320, help='side of the images in pixels (default: 320)')
    parser.add_argument('--batch-size', type=int, default=2, help='images in a step (default: 2)')
    parser.add_argument('--boxes', type=int, default=10, help='boxes in an image (default: 10)')
    parser.add_argument('--rounds', type=int, default=5, help='steps of each config (default: 5)')
    parser.add_argument('--device', help='cpu or cuda (default: cuda where there is one)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value for all of them, as in tools/train.py'
    )
    return parser.parse_args()


class Step:
    """One training step of a config's detector, on random weights and data."""

    def __init__(self, path: str, args: argparse.Namespace, device: torch.device) -> None:
        init_default_scope('mmdet')
        cfg = Config.fromfile(path)
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
        cfg.model.backbone.init_cfg = None
        self.name, self.device = Path(path).stem, device
        self.model = MODELS.build(cfg.model).to(device).train()
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)
        self.data = random_batch(args.size, args.batch_size, args.boxes, self.model.bbox_head.num_classes)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for part in PARTS:
            if hasattr(self.model, part):
                self._time_forward(part, getattr(self.model, part))

    def run(self) -> None:
        """Forward, loss, backward, update."""
        self.optimizer.zero_grad()
        with self._timed('step'):
            with self._timed('forward and losses'):
                data = self.model.data_preprocessor(self.data, True)
                losses = self.model.loss(data['inputs'], data['data_samples'])
                loss, _ = self.model.parse_losses(losses)
            with self._timed('backward'):
                loss.backward()
            with self._timed('optimizer'):
                self.optimizer.step()

    def medians(self) -> dict[str, float]:
        """Seconds of each part; 'losses' is what the parts' forward passes leave of the forward."""
        forwards = zip(*(self.seconds[part] for part in PARTS if part in self.seconds))
        losses = [whole - sum(parts) for whole, parts in zip(self.seconds['forward and losses'], forwards)]
        return {name: statistics.median(values) for name, values in {**self.seconds, 'losses': losses}.items()}

    def _time_forward(self, name: str, module: torch.nn.Module) -> None:
        started = []
        module.register_forward_pre_hook(lambda *_: started.append(self._now()))
        module.register_forward_hook(lambda *_: self.seconds[name].append(self._now() - started.pop()))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[name].append(self._now() - start)

    def _now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter()


def random_batch(size: int, batch_size: int, boxes: int, num_classes: int) -> dict:
    """Images of noise with boxes of 1/16 to 1/2 of their side."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8) for _ in range(batch_size)]
    samples = []
    for _ in images:
        sides = size * (1 / 16 + torch.rand(boxes, 2, generator=generator) * 7 / 16)
        corners = torch.rand(boxes, 2, generator=generator) * (size - sides)
        labels = torch.randint(0, num_classes, (boxes,), generator=generator)
        sample = DetDataSample(
            metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0)),
            gt_instances=InstanceData(bboxes=torch.cat([corners, corners + sides], dim=1), labels=labels),
        )
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def table(steps: list[Step]) -> str:
    """Markdown: seconds of each part and the ratio of the steps to the first."""
    columns = (*PARTS, 'losses', 'backward', 'optimizer', 'step')
    lines = [f'| config | {" | ".join(columns)} | ratio (range) |', '|---' * (len(columns) + 2) + '|']
    base = steps[0].seconds['step']
    for step in steps:
        ratios = [mine / other for mine, other in zip(step.seconds['step'], base)]
        medians = step.medians()
        cells = [f'{medians[name]:.3f}' if name in medians else '' for name in columns]
        ratio = f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
        lines.append(f'| {step.name} | {" | ".join(cells)} | {ratio} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()

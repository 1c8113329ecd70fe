"""Time the training steps of several configs side by side, and say where the time goes.

Random images and boxes: no data is needed. The configs take turns, so that whatever slows the machine slows them all;
ratios are medians over the rounds, to the first config. 'losses' is what the parts leave of the forward pass: matching
and losses; of a two-stage detector its proposals, sampling and RoI pooling as well.
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
from mmengine.config import Config, DictAction

from balanced_det.benchmark.measure import choose_device, compare, ratio
from balanced_det.benchmark.steps import Step

PARTS = ('backbone', 'neck', 'transfer', 'arm_head', 'bbox_head', 'rpn_head', 'roi_head.bbox_head')
EXAMPLE = """example:
  python tools/step_time.py configs/ssd_resnet_fpn/ssd300_r50_fpn_bccd.py configs/refinedet/refinedet320_r50_bccd.py \\
      --cfg-options model.bbox_head.num_classes=20 model.backbone.depth=101
"""


def main() -> None:
    args = parse_args()
    device = choose_device(args.device)
    steps = [TimedStep(path, args, device) for path in args.configs]
    # By number: a config may stand twice in the list, which shows how far two runs of the same differ.
    cases = {str(number): step.run for number, step in enumerate(steps)}
    seconds = compare(cases, args.rounds, lambda text: print(text, file=sys.stderr))
    print(
        f'{device.type}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, {args.size} x {args.size}, '
        f'{args.batch_size} images, {args.boxes} boxes each, {args.rounds} rounds'
    )
    print(table(steps, list(seconds.values())))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'configs',
        nargs='+',
        help='configs of one-stage detectors or of Faster R-CNN; the first is the base of the ratios',
    )
    parser.add_argument('--size', type=int, default=320, help='side of the images in pixels (default: 320)')
    parser.add_argument('--batch-size', type=int, default=2, help='images in a step (default: 2)')
    parser.add_argument('--boxes', type=int, default=10, help='boxes in an image (default: 10)')
    parser.add_argument('--rounds', type=int, default=5, help='steps of each config (default: 5)')
    parser.add_argument('--device', help='cpu, cuda or cuda:1 (default: cuda where there is one)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value for all of them, as in tools/train.py'
    )
    return parser.parse_args()


class TimedStep(Step):
    """A training step that tells how long its parts took."""

    def __init__(self, path: str, args: argparse.Namespace, device: torch.device) -> None:
        cfg = Config.fromfile(path)
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
        super().__init__(cfg, args.size, args.batch_size, args.boxes, device)
        self.name, self.device = Path(path).stem, device
        self.seconds: dict[str, list[float]] = defaultdict(list)
        modules = dict(self.model.named_modules())
        for part in PARTS:
            if part in modules:
                self._time_forward(part, modules[part])

    def forward(self) -> torch.Tensor:
        """The sum of the losses."""
        with self._timed('forward and losses'):
            return super().forward()

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients."""
        with self._timed('backward'):
            super().backward(loss)

    def update(self) -> None:
        """Change the weights."""
        with self._timed('optimizer'):
            super().update()

    def medians(self) -> dict[str, float]:
        """Seconds of each part; 'losses' is what the parts' forward passes leave of the forward."""
        seconds = {name: values[1:] for name, values in self.seconds.items()}  # the first step warms up
        forwards = zip(*(seconds[part] for part in PARTS if part in seconds))
        seconds['losses'] = [whole - sum(parts) for whole, parts in zip(seconds['forward and losses'], forwards)]
        return {name: statistics.median(values) for name, values in seconds.items()}

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


def table(steps: list[TimedStep], seconds: list[list[float]]) -> str:
    """Markdown: seconds of each part and the ratio of the steps to the first; ``seconds`` are those of whole steps."""
    all_medians = [{**step.medians(), 'step': statistics.median(mine)} for step, mine in zip(steps, seconds)]
    names = (*PARTS, 'losses', 'backward', 'optimizer', 'step')
    columns = [name for name in names if any(name in medians for medians in all_medians)]
    lines = [f'| config | {" | ".join(columns)} | ratio (range) |', '|---' * (len(columns) + 2) + '|']
    for step, medians, mine in zip(steps, all_medians, seconds):
        cells = [f'{medians[name]:.3f}' if name in medians else '' for name in columns]
        ratios = '{:.2f} ({:.2f} to {:.2f})'.format(*ratio(mine, seconds[0]))
        lines.append(f'| {step.name} | {" | ".join(cells)} | {ratios} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()

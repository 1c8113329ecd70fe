"""RefineDet."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import Tensor

from balanced_det.heads.base import one_class, visible_instances
from balanced_det.models.refinedet_head import RefinedAnchors

Outputs = tuple[list[Tensor], list[Tensor]]


@MODELS.register_module()
class RefineDet(SingleStageDetector):
    """Single-shot refinement network (Zhang et al. 2018).

    ``arm_head`` (anchor refinement module) tells objects from background and moves the anchors, on the source maps.
    ``transfer`` (transfer connection blocks) makes the maps for ``bbox_head`` (object detection module), which matches
    and regresses against the moved anchors. These and the objectness are constants to it: its loss has no gradient in
    the ARM's outputs. Loss: the sum of both heads'.

    Args:
        arm_head: A head on ``SSDHead`` with one class; the ground truth of every class is that class.
        transfer: Block of the neck between the heads.
        train_cfg: Of both heads.
        test_cfg: Of ``bbox_head``.
        **kwargs: As ``SingleStageDetector``: backbone, neck (it makes the source maps), bbox_head, data_preprocessor,
            init_cfg.

    Raises:
        ValueError: The heads do not have the same anchors, or the ARM has more than one class.
    """

    def __init__(
        self,
        *,
        arm_head: dict,
        transfer: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_cfg=train_cfg, test_cfg=test_cfg, **kwargs)
        self.transfer = MODELS.build(transfer)
        self.arm_head = MODELS.build({**arm_head, 'train_cfg': train_cfg})
        if self.arm_head.num_classes != 1:
            raise ValueError(
                f'RefineDet: arm_head.num_classes is {self.arm_head.num_classes}; the anchor refinement module knows '
                'objects and background alone: set it to 1'
            )
        arm, odm = (head.get('anchor_generator') for head in (arm_head, kwargs['bbox_head']))
        if arm != odm:
            raise ValueError(
                f'RefineDet: arm_head has the anchors {arm}, bbox_head {odm}: give both the same anchor_generator'
            )

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> dict[str, Any]:
        """Losses of both heads, the ARM's under the names of its head with the prefix 'arm_'.

        Args:
            batch_inputs: (N, 3, H, W).
            batch_data_samples: With ground truth; boxes without an area inside their image are left out, and counted
                in 'gt_left_out'.

        Returns:
            Losses, and the counters of ``bbox_head``.
        """
        gts, ignored, metas = unpack_gt_instances(batch_data_samples)
        gts, left_out = visible_instances(gts, metas)
        arm_outs, odm_outs = self._forward(batch_inputs)
        arm_losses = self.arm_head.loss_by_feat(*arm_outs, one_class(gts), metas, ignored)
        losses = self.bbox_head.loss_by_feat(*odm_outs, gts, self.with_refined(metas, arm_outs), ignored)
        arm_losses = {f'arm_{name}': value for name, value in arm_losses.items() if 'loss' in name}
        return {**arm_losses, **losses, 'gt_left_out': left_out}

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample], rescale: bool = True
    ) -> list[DetDataSample]:
        """Detections; arguments as ``SingleStageDetector.predict``."""
        arm_outs, odm_outs = self._forward(batch_inputs)
        metas = self.with_refined([sample.metainfo for sample in batch_data_samples], arm_outs)
        results = self.bbox_head.predict_by_feat(*odm_outs, batch_img_metas=metas, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample] | None = None
    ) -> tuple[Outputs, Outputs]:
        """Scores and deltas of the ARM and of the ODM."""
        sources = self.extract_feat(batch_inputs)
        return self.arm_head(sources), self.bbox_head(self.transfer(sources))

    @torch.no_grad()
    def with_refined(self, batch_img_metas: list[dict], arm_outs: Outputs) -> list[dict]:
        """Meta information of each image, and its :class:`RefinedAnchors` under 'refined'.

        Args:
            batch_img_metas: Of N images.
            arm_outs: Scores and deltas of the ARM, by level.

        Returns:
            N dicts; the given ones stay as they are.
        """
        cls_scores, bbox_preds = ([_rows(level, width) for level in outs] for outs, width in zip(arm_outs, (2, 4)))
        sizes = [level.shape[-2:] for level in arm_outs[0]]
        head, deltas = self.arm_head, torch.cat(bbox_preds, dim=1).float()
        anchors = torch.cat(head.prior_generator.grid_priors(sizes, dtype=torch.float32, device=deltas.device))
        priors = head.bbox_coder.decode(anchors.repeat(len(deltas), 1), deltas.flatten(0, 1)).view_as(deltas)
        objectness = torch.cat(cls_scores, dim=1).float().softmax(dim=-1)[..., 0]
        return [
            dict(meta, refined=RefinedAnchors(*image)) for meta, image in zip(batch_img_metas, zip(priors, objectness))
        ]


def _rows(level: Tensor, width: int) -> Tensor:
    """(N, anchors * width, H, W) -> (N, H * W * anchors, width)."""
    return level.permute(0, 2, 3, 1).reshape(len(level), -1, width)

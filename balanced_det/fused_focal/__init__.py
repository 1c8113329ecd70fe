"""The sigmoid focal loss without a one-hot target and without a map of the losses."""

from balanced_det.fused_focal.function import focal_negatives, positive_focal_loss, runs_on, sum_factor

__all__ = ['focal_negatives', 'positive_focal_loss', 'runs_on', 'sum_factor']

"""Paper A, Eq. 3-4 on the focal loss, eta of Table 3."""
iou_balanced_focal = dict(
    type='IoUBalancedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, eta=1.5, loss_weight=1.0)

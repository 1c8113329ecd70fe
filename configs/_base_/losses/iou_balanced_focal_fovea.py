"""Paper A, Eq. 3-4 on FoveaBox's focal loss, with the gamma and alpha of mmdet's config."""
iou_balanced_focal_fovea = dict(
    type='IoUBalancedFocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.4, eta=1.5, loss_weight=1.0)

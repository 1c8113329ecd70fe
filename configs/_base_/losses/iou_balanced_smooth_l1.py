"""Paper A, Eq. 5-6, for RetinaNet: lambda, beta (the paper's delta) and w_loc of Table 3."""
iou_balanced_smooth_l1 = dict(
    type='IoUBalancedSmoothL1Loss', beta=0.111, lambda_=1.5, target_stds=(1.0, 1.0, 1.0, 1.0), loss_weight=3.049)

"""Paper A, Eq. 5-6, for SSD; w_loc was not published: LocWeightCalibrationHook sets loss_weight."""
iou_balanced_smooth_l1_ssd = dict(
    type='IoUBalancedSmoothL1Loss', beta=1.0, lambda_=1.5, target_stds=(0.1, 0.1, 0.2, 0.2), loss_weight=1.0)

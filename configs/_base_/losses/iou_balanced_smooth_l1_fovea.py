"""Paper A, Eq. 5-6, for FoveaBox; w_loc was not published: LocWeightCalibrationHook sets loss_weight."""
iou_balanced_smooth_l1_fovea = dict(type='IoUBalancedSmoothL1Loss', beta=0.11, lambda_=1.5, loss_weight=1.0)

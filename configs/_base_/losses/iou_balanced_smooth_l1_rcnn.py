"""Paper A, Eq. 5-6, for R-CNN heads: the authors' w_loc of Faster R-CNN."""
iou_balanced_smooth_l1_rcnn = dict(
    type='IoUBalancedSmoothL1Loss', beta=1.0, lambda_=1.5, target_stds=(0.1, 0.1, 0.2, 0.2), loss_weight=2.4)

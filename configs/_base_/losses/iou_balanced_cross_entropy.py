"""Paper A, Eq. 3-4 on the softmax cross-entropy; eta 1.3 is the authors' for Faster R-CNN, SSD has 1.5."""
iou_balanced_cross_entropy = dict(
    type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.3, loss_weight=1.0)

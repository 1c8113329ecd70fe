"""SSD's augmentation and its input of 512 x 512, as in mmdet's ssd512_coco."""
_base_ = './ssd300_pipeline.py'

ssd_input_size = (512, 512)
_base_.ssd_train_pipeline[4].scale = ssd_input_size
_base_.ssd_test_pipeline[1].scale = ssd_input_size

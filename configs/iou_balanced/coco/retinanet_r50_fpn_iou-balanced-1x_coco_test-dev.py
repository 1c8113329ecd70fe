"""Paper A, Table 1, row 19, on test-dev: writes the detections for the COCO server."""
_base_ = './retinanet_r50_fpn_iou-balanced-1x_coco.py'
test_dataloader = dict(
    dataset=dict(ann_file='annotations/image_info_test-dev2017.json', data_prefix=dict(img='test2017/')))
test_evaluator = dict(
    format_only=True,
    ann_file=_base_.data_root + 'annotations/image_info_test-dev2017.json',
    outfile_prefix='work_dirs/retinanet_r50_fpn_iou-balanced-1x_coco/'
    'detections_test-dev2017_retinanet_r50_fpn_iou-balanced-1x_results')

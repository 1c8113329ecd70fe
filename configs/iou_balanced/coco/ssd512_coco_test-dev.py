"""Paper A, Table 1, row 12, on test-dev: writes the detections for the COCO server."""
_base_ = './ssd512_coco.py'
test_dataloader = dict(
    dataset=dict(ann_file='annotations/image_info_test-dev2017.json', data_prefix=dict(img='test2017/')))
test_evaluator = dict(
    format_only=True,
    ann_file=_base_.data_root + 'annotations/image_info_test-dev2017.json',
    outfile_prefix='work_dirs/ssd512_coco/'
    'detections_test-dev2017_ssd512_results')

"""RefineDet512 on ResNet-101, on COCO-tiny (80 images: a trial of the machinery, not of accuracy)."""
_base_ = './refinedet512_r50_coco-tiny.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))

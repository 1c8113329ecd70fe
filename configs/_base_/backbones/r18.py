"""ResNet-18 in the place of ResNet-50; the neck's `in_channels` are [64, 128, 256, 512] then."""
r18 = dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))

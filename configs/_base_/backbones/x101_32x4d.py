"""ResNeXt-101 of 32 groups, 4 wide, in the place of ResNet-50."""
x101_32x4d = dict(
    type='ResNeXt', depth=101, groups=32, base_width=4,
    init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnext101_32x4d'))

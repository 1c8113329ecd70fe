"""Swapped losses: what changes in a config, as blocks and as a file, and what is refused."""

from __future__ import annotations

import copy
import inspect
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import harmonic  # noqa: F401  registers the heads
import iou_balanced  # noqa: F401  registers the heads and losses of the table
from balanced_det.heads import check_heads
from balanced_det.swap import METHODS, Method, SwapError, find_config, plan_swap, swap_config, swap_losses
from balanced_det.swap import plan as planning
from balanced_det.swap.methods import HeadForm

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'swap_losses.py'
CONFIGS = ROOT / 'configs'
HOOK = dict(type='LocWeightCalibrationHook')


def coder(*stds, **changes):
    return dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=list(stds), **changes)


RETINA = dict(
    type='RetinaHead',
    num_classes=3,
    bbox_coder=coder(1.0, 1.0, 1.0, 1.0),
    loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=1.8, alpha=0.3, loss_weight=1.0),
    loss_bbox=dict(type='L1Loss', loss_weight=1.0),
)
RCNN = dict(
    type='Shared2FCBBoxHead',
    num_classes=3,
    bbox_coder=coder(0.1, 0.1, 0.2, 0.2),
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type='SmoothL1Loss', beta=0.5, loss_weight=1.0),
)


def dense(head, **model):
    return Config(dict(model=dict(type='RetinaNet', bbox_head=head, **model)))


def two_stage(head, roi_head='StandardRoIHead'):
    roi_head = dict(type=roi_head, bbox_head=head)
    return Config(dict(model=dict(type='FasterRCNN', rpn_head=dict(type='RPNHead'), roi_head=roi_head)))


def refusal(cfg, **options):
    with pytest.raises(SwapError) as error:
        plan_swap(cfg, **options)
    return str(error.value)


class TestBlocks:
    def test_retinanet(self):
        head = swap_config(dense(RETINA)).model.bbox_head
        assert head.to_dict() == dict(
            type='IoUBalancedRetinaHead',
            num_classes=3,
            bbox_coder=coder(1.0, 1.0, 1.0, 1.0),
            loss_cls=dict(
                type='IoUBalancedFocalLoss', use_sigmoid=True, gamma=1.8, alpha=0.3, eta=1.5, loss_weight=1.0
            ),
            # mmdet's L1 has no beta: it is the paper's.
            loss_bbox=dict(
                type='IoUBalancedSmoothL1Loss',
                beta=0.111,
                lambda_=1.5,
                target_stds=(1.0, 1.0, 1.0, 1.0),
                loss_weight=1.0,
            ),
        )

    def test_two_stage_detector_keeps_its_rpn(self):
        model = swap_config(two_stage(RCNN)).model
        assert model.rpn_head == dict(type='RPNHead')
        assert model.roi_head.bbox_head.type == 'IoUBalancedShared2FCBBoxHead'
        assert model.roi_head.bbox_head.loss_cls == dict(
            type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.3, loss_weight=1.0
        )
        assert model.roi_head.bbox_head.loss_bbox == dict(
            type='IoUBalancedSmoothL1Loss',
            beta=0.5,
            lambda_=1.5,
            target_stds=(0.1, 0.1, 0.2, 0.2),
            loss_weight=1.0,
        )

    def test_each_stage_of_a_cascade_has_the_stds_of_its_coder(self):
        stds = [(0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)]
        stages = [dict(RCNN, bbox_coder=coder(*stage), reg_class_agnostic=True) for stage in stds]
        heads = swap_config(two_stage(stages)).model.roi_head.bbox_head
        assert [head.loss_bbox.target_stds for head in heads] == stds
        assert [head.type for head in heads] == ['IoUBalancedShared2FCBBoxHead'] * 3
        assert all(head.reg_class_agnostic for head in heads)

    def test_ssd_gets_the_blocks_it_lacks(self):
        head = dict(type='SSDHead', bbox_coder=coder(0.1, 0.1, 0.2, 0.2))
        cfg = dense(head, train_cfg=dict(smoothl1_beta=0.4))
        swapped = swap_config(cfg).model.bbox_head
        assert swapped.type == 'IoUBalancedSSDHead'
        assert swapped.loss_cls == dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.5)
        assert swapped.loss_bbox == dict(
            type='IoUBalancedSmoothL1Loss', beta=0.4, lambda_=1.5, target_stds=(0.1, 0.1, 0.2, 0.2)
        )
        # The other loss is left out: by default the head computes the stock one, with train_cfg's beta.
        assert 'loss_bbox' not in swap_config(cfg, losses='cls').model.bbox_head
        assert 'loss_cls' not in swap_config(cfg, losses='loc').model.bbox_head

    @pytest.mark.parametrize('head', ['ConfigurableSSDHead', 'DSSDHead', 'RefineDetHead'])
    def test_heads_of_this_package_may_have_blocks(self, head):
        block = dict(type=head, bbox_coder=coder(0.1, 0.1, 0.2, 0.2))
        balanced = 'IoUBalanced' + head.replace('Configurable', '')
        swapped = swap_config(dense(block, train_cfg=dict(smoothl1_beta=0.4))).model.bbox_head
        assert swapped.type == balanced
        assert swapped.loss_cls == dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.5)
        assert swapped.loss_bbox.beta == 0.4
        # What a block says comes before train_cfg.
        block.update(
            loss_cls=dict(type='CrossEntropyLoss', loss_weight=2.0),
            loss_bbox=dict(type='SmoothL1Loss', beta=0.7, loss_weight=3.0),
        )
        result = swap_config(dense(block, train_cfg=dict(smoothl1_beta=0.4)))
        swapped = result.model.bbox_head
        assert (swapped.loss_cls.loss_weight, swapped.loss_bbox.beta) == (2.0, 0.7)
        assert result.custom_hooks == [dict(HOOK, base_weight=3.0)]
        one = swap_config(dense(block), losses='cls').model.bbox_head
        assert (one.type, one.loss_bbox) == (balanced, block['loss_bbox'])
        block.update(loss_bbox=dict(type='GIoULoss'))
        assert 'loss_bbox stays as it is: GIoULoss' in plan_swap(dense(block)).notes[0]

    def test_foveabox_has_no_coder(self):
        head = dict(
            type='FoveaHead',
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.4),
            loss_bbox=dict(type='L1Loss'),
        )
        swapped = swap_config(dense(head)).model.bbox_head
        assert swapped.loss_bbox == dict(type='IoUBalancedSmoothL1Loss', beta=0.11, lambda_=1.5)
        assert (swapped.loss_cls.gamma, swapped.loss_cls.alpha, swapped.loss_cls.eta) == (1.5, 0.4, 1.5)

    def test_region_proposal_network_alone(self):
        cfg = Config(dict(model=dict(type='RPN', rpn_head=dict(type='RPNHead'))))
        head = swap_config(cfg).model.rpn_head
        # The blocks are those of AnchorHead's constructor: binary cross-entropy, smooth L1 with beta 1/9.
        assert head == dict(
            type='IoUBalancedRPNHead',
            loss_cls=dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=True, eta=1.5, loss_weight=1.0),
            loss_bbox=dict(
                type='IoUBalancedSmoothL1Loss',
                beta=1.0 / 9.0,
                lambda_=1.5,
                target_stds=(1.0, 1.0, 1.0, 1.0),
                loss_weight=1.0,
            ),
        )

    def test_what_the_config_does_not_say_is_the_constructors(self):
        head = swap_config(two_stage(dict(type='Shared4Conv1FCBBoxHead', fc_out_channels=8))).model.roi_head.bbox_head
        assert head.loss_bbox.target_stds == (0.1, 0.1, 0.2, 0.2)  # BBoxHead, two classes up
        assert (head.loss_bbox.beta, head.loss_cls.use_sigmoid) == (1.0, False)

    def test_defaults_that_a_loss_must_say_are_spelled_out(self):
        swapped = swap_config(dense(dict(RETINA, loss_cls=dict(type='FocalLoss'), loss_bbox=dict(type='SmoothL1Loss'))))
        assert swapped.model.bbox_head.loss_cls == dict(type='IoUBalancedFocalLoss', use_sigmoid=True, eta=1.5)
        assert swapped.model.bbox_head.loss_bbox.beta == 1.0
        assert swap_config(two_stage(dict(RCNN, loss_cls=dict(type='CrossEntropyLoss')))).model.roi_head.bbox_head[
            'loss_cls'
        ] == dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.3)

    def test_reduction_and_weight_are_carried(self):
        blocks = dict(
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='sum', loss_weight=0.5),
            loss_bbox=dict(type='L1Loss', reduction='sum', loss_weight=3.0),
        )
        head = swap_config(dense(dict(RETINA, **blocks))).model.bbox_head
        assert (head.loss_cls.use_sigmoid, head.loss_cls.reduction, head.loss_cls.loss_weight) == (True, 'sum', 0.5)
        assert (head.loss_bbox.reduction, head.loss_bbox.loss_weight) == ('sum', 3.0)

    def test_arguments_at_their_neutral_value_do_not_matter(self):
        loss = dict(type='CrossEntropyLoss', use_sigmoid=False, class_weight=None, avg_non_ignore=False)
        head = swap_config(two_stage(dict(RCNN, loss_cls=loss))).model.roi_head.bbox_head
        assert head.loss_cls == dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.3)

    def test_a_detector_in_a_tracker(self):
        detector = two_stage(RCNN).model
        tracker = Config(dict(model=dict(type='QDTrack', detector=detector, track_head=dict(type='X'))))
        swapped = swap_config(tracker).model
        assert swapped.detector.roi_head.bbox_head.type == 'IoUBalancedShared2FCBBoxHead'
        assert swapped.track_head == dict(type='X')

    def test_weights_of_a_semi_supervised_cascade_are_named_by_the_end_of_the_module(self):
        # SoftTeacher builds the block 'detector' as 'student' and 'teacher'.
        stages = [dict(RCNN, loss_bbox=dict(type='SmoothL1Loss', loss_weight=weight)) for weight in (1.0, 2.0)]
        cfg = Config(dict(model=dict(type='SoftTeacher', detector=two_stage(stages).model)))
        assert swap_config(cfg).custom_hooks[-1].base_weight == {
            'roi_head.bbox_head.0.loss_bbox': 1.0,
            'roi_head.bbox_head.1.loss_bbox': 2.0,
        }

    def test_types_may_be_classes_or_full_names(self):
        blocks = dict(type=RetinaHead, loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True))
        assert swap_config(dense(dict(RETINA, **blocks))).model.bbox_head.type == 'IoUBalancedRetinaHead'

    def test_exponents(self):
        head = swap_config(dense(RETINA), eta=1.0, lambda_=0.0).model.bbox_head
        assert (head.loss_cls.eta, head.loss_bbox.lambda_) == (1.0, 0.0)

    @pytest.mark.parametrize(
        ('losses', 'swapped', 'kept', 'hooks'),
        [('cls', 'loss_cls', 'loss_bbox', 0), ('loc', 'loss_bbox', 'loss_cls', 1)],
    )
    def test_one_loss(self, losses, swapped, kept, hooks):
        result = swap_config(dense(RETINA), losses=losses)
        assert result.model.bbox_head.type == 'IoUBalancedRetinaHead'
        assert result.model.bbox_head[swapped].type.startswith('IoUBalanced')
        assert result.model.bbox_head[kept] == RETINA[kept]
        assert len(result.get('custom_hooks', [])) == hooks

    def test_the_original_is_left_alone(self):
        cfg = two_stage([RCNN, RCNN])
        cfg.custom_hooks = [dict(type='NumClassCheckHook')]
        before = copy.deepcopy(cfg.to_dict())
        swap_config(cfg).model.roi_head.bbox_head[0].loss_bbox.beta = 7
        assert cfg.to_dict() == before


class TestHooksAndImports:
    def test_of_a_config_without(self):
        result = swap_config(dense(RETINA))
        assert result.custom_hooks == [HOOK]
        assert result.custom_imports == dict(imports=['iou_balanced'], allow_failed_imports=False)

    @pytest.mark.parametrize('imports', [['mmdet.models'], ('mmdet.models',), 'mmdet.models'])
    def test_own_ones_are_kept(self, imports):
        cfg = dense(RETINA)
        cfg.custom_hooks = [dict(type='NumClassCheckHook')]
        cfg.custom_imports = dict(imports=imports, allow_failed_imports=True)
        result = swap_config(cfg)
        assert result.custom_hooks == [dict(type='NumClassCheckHook'), HOOK]
        assert result.custom_imports == dict(imports=['mmdet.models', 'iou_balanced'], allow_failed_imports=True)

    def test_nothing_twice(self):
        cfg = dense(RETINA)
        cfg.custom_hooks = [dict(HOOK, num_iters=5)]
        cfg.custom_imports = dict(imports=['iou_balanced', 'mmdet.models'])
        result = swap_config(cfg)
        assert result.custom_hooks == cfg.custom_hooks
        assert result.custom_imports == cfg.custom_imports

    def test_the_weight_of_the_stock_loss_is_the_base_of_the_new_one(self):
        loss = dict(type='SmoothL1Loss', loss_weight=2.0)
        assert swap_config(dense(dict(RETINA, loss_bbox=loss))).custom_hooks == [dict(HOOK, base_weight=2.0)]
        heavy = dict(RCNN, loss_bbox=loss)
        assert swap_config(two_stage([heavy, heavy])).custom_hooks == [dict(HOOK, base_weight=2.0)]
        names = {'roi_head.bbox_head.0.loss_bbox': 2.0, 'roi_head.bbox_head.1.loss_bbox': 1.0}
        assert swap_config(two_stage([heavy, RCNN])).custom_hooks == [dict(HOOK, base_weight=names)]


LEGACY = dict(coder(1.0, 1.0, 1.0, 1.0), type='LegacyDeltaXYWHBBoxCoder')
UNSERVED = [
    (dense(dict(RETINA, loss_bbox=dict(type='GIoULoss'))), 'loss_bbox', ['GIoULoss', 'L1Loss']),
    (dense(dict(RETINA, reg_decoded_bbox=True)), 'loss_bbox', ['reg_decoded_bbox=True']),
    (dense(dict(RETINA, bbox_coder=LEGACY)), 'loss_bbox', ['LegacyDeltaXYWHBBoxCoder']),
    (dense(dict(RETINA, bbox_coder=coder(1, 1, 1, 1, add_ctr_clamp=True))), 'loss_bbox', ['add_ctr_clamp=True']),
    (
        dense(dict(RETINA, bbox_coder=dict(coder(1, 1, 1, 1), target_means=[0, 0, 0.5, 0]))),
        'loss_bbox',
        ['[0, 0, 0.5, 0]'],
    ),
    (dense(dict(RETINA, loss_cls=dict(type='GHMC'))), 'loss_cls', ['GHMC', 'FocalLoss']),
    (dense(dict(RETINA, loss_cls=dict(RETINA['loss_cls'], activated=True))), 'loss_cls', ['activated=True']),
    (
        dense(dict(RETINA, loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[1.0, 2.0, 3.0]))),
        'loss_cls',
        ['class_weight=[1.0, 2.0, 3.0]'],
    ),
    (
        two_stage(dict(RCNN, loss_cls=dict(type='CrossEntropyLoss', ignore_index=255, avg_non_ignore=True))),
        'loss_cls',
        ['ignore_index=255', 'avg_non_ignore=True'],
    ),
    (two_stage(dict(RCNN, loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True))), 'loss_cls', ['background']),
    (two_stage(dict(RCNN, loss_cls=dict(type='FocalLoss'))), 'loss_cls', ['background']),
    (two_stage(dict(RCNN, loss_cls=dict(type='SeesawLoss', num_classes=3))), 'loss_cls', ['SeesawLoss']),
]


@pytest.mark.parametrize(('cfg', 'kept', 'words'), UNSERVED, ids=[words[0] for _, _, words in UNSERVED])
class TestLossWithoutABalancedForm:
    def test_stays_with_a_note(self, cfg, kept, words):
        swap = plan_swap(cfg)
        result = swap.apply(cfg)
        key = 'model.roi_head.bbox_head' if 'roi_head' in cfg.model else 'model.bbox_head'
        (note,) = swap.notes
        assert note.startswith(f'{key}.{kept} stays as it is')
        assert all(word in note for word in words)
        head, stock = (c.model.get('bbox_head') or c.model.roi_head.bbox_head for c in (result, cfg))
        other = {'loss_cls': 'loss_bbox', 'loss_bbox': 'loss_cls'}[kept]
        assert head[kept] == stock[kept]
        assert head[other].type.startswith('IoUBalanced')
        assert result.get('custom_hooks', []) == ([HOOK] if other == 'loss_bbox' else [])

    def test_cannot_be_asked_for(self, cfg, kept, words):
        message = refusal(cfg, losses={'loss_cls': 'cls', 'loss_bbox': 'loc'}[kept])
        assert f'.{kept} cannot be swapped' in message
        assert all(word in message for word in words)


class TestRefusals:
    def test_a_roi_head_stays_stock_with_its_classification_loss(self):
        # Ours refuses SeesawLoss, which brings its own activation.
        head = swap_config(
            two_stage(dict(RCNN, loss_cls=dict(type='SeesawLoss', num_classes=3)))
        ).model.roi_head.bbox_head
        assert (head.type, head.loss_bbox.type) == ('Shared2FCBBoxHead', 'IoUBalancedSmoothL1Loss')

    def test_neither_loss(self):
        message = refusal(dense(dict(RETINA, loss_cls=dict(type='GHMC'), loss_bbox=dict(type='GHMR'))))
        assert [line.split(' cannot')[0] for line in message.splitlines()] == [
            'model.bbox_head.loss_cls',
            'model.bbox_head.loss_bbox',
        ]

    @pytest.mark.parametrize(
        ('cfg', 'words'),
        [
            (
                dense(dict(type='FCOSHead')),
                ["model.bbox_head.type='FCOSHead'", 'FCOSHead.loss_by_feat', 'RetinaHead, '],
            ),
            (dense(dict(type='GARetinaHead')), ['GuidedAnchorHead.loss_by_feat']),
            (dense(dict(type='LDHead')), ['LDHead.loss_by_feat']),
            (two_stage([RCNN, dict(type='DIIHead')]), ['model.roi_head.bbox_head.1', 'DIIHead.loss_and_target']),
            (two_stage(dict(type='DoubleConvFCBBoxHead')), ['(RoILossMixin, DoubleConvFCBBoxHead)', 'BBoxHead']),
            (two_stage(dict(RCNN, with_reg=False)), ['with_reg=False']),
            (two_stage(RCNN, roi_head='PISARoIHead'), ['PISARoIHead']),
            (dense(dict(type='NoSuchHead')), ["model.bbox_head.type='NoSuchHead'", 'custom_imports']),
            (dense(dict(RETINA, loss_cls=None)), ['model.bbox_head.loss_cls', 'not registered']),
            (Config(dict(model=dict(type='SOLO', mask_head=dict(type='SOLOHead')))), ['SOLO', 'no bbox_head']),
            (Config(dict(tta_model=dict(type='DetTTAModel'))), ['no model']),
            (dense(dict(RETINA, type='IoUBalancedRetinaHead')), ['IoUBalancedRetinaHead already']),
            (dense(dict(RETINA, loss_bbox=dict(type='IoUBalancedSmoothL1Loss'))), ['IoUBalancedSmoothL1Loss already']),
        ],
    )
    def test_heads(self, cfg, words):
        message = refusal(cfg)
        assert all(word in message for word in words), message
        assert len(message.splitlines()) <= 2

    def test_what_is_not_mmdets_is_not_taken_for_it(self):
        class MyHead(RetinaHead):
            pass

        head = type('RetinaHead', (RetinaHead,), {})
        loss = type('FocalLoss', (FocalLoss,), {})
        assert '(AnchorLossMixin, MyHead)' in refusal(dense(dict(RETINA, type=MyHead)))
        assert '(AnchorLossMixin, RetinaHead)' in refusal(dense(dict(RETINA, type=head)))
        assert 'loss_cls' in refusal(dense(dict(RETINA, loss_cls=dict(type=loss))), losses='cls')

    @pytest.mark.parametrize(
        ('options', 'words'),
        [
            (dict(method='focal'), ['method', 'focal', 'iou-balanced']),
            (dict(losses='all'), ['losses', 'cls, loc, both']),
            (dict(eta=-1.0), ['eta=-1.0', 'at least 0']),
            (dict(lambda_=float('nan')), ['lambda_=nan']),
            (dict(losses='cls', lambda_=1.0), ['lambda_=1.0 changes nothing']),
        ],
    )
    def test_options(self, options, words):
        message = refusal(dense(RETINA), **options)
        assert all(word in message for word in words)


class TestTable:
    @pytest.mark.parametrize('method', METHODS)
    def test_balanced_heads_are_their_stock_heads(self, method):
        for stock, form in METHODS[method].heads.items():
            assert issubclass(MODELS.get(form.type), MODELS.get(stock))

    @pytest.mark.parametrize('method', METHODS)
    def test_balanced_losses_take_the_arguments(self, method):
        values = set().union(*(form.values for form in METHODS[method].heads.values()))
        for forms in METHODS[method].losses.values():
            for stock, form in forms.items():
                assert set(form.arguments) <= set(inspect.signature(MODELS.get(form.type)).parameters)
                # Each has a source: the stock block, the table or the coder.
                stock_arguments = set(inspect.signature(MODELS.get(stock)).parameters)
                assert set(form.arguments) <= stock_arguments | values | set(form.spelled) | {'target_stds'}

    def test_a_method_that_adds_a_block_is_one_more_entry(self, monkeypatch):
        joint = Method(
            title='Joint losses',
            package='joint',
            heads={'RetinaHead': HeadForm('JointRetinaHead')},
            added={'loss_joint': dict(type='JointLoss')},
        )
        monkeypatch.setitem(METHODS, 'joint', joint)
        cfg = dense(RETINA)
        result = plan_swap(cfg, 'joint').apply(cfg)
        assert result.model.bbox_head == dict(RETINA, type='JointRetinaHead', loss_joint=dict(type='JointLoss'))
        assert result.custom_imports.imports == ['joint']
        assert 'custom_hooks' not in result
        assert 'Joint losses replace none' in refusal(cfg, method='joint', losses='cls')
        assert 'IoUBalancedRetinaHead already' in refusal(swap_config(cfg), method='joint')


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def retina(tmp_path):
    """A config of a user."""
    return write(tmp_path, 'configs/mine.py', f'model = dict(type={"RetinaNet"!r}, bbox_head={RETINA!r})\n')


class TestText:
    def test_retinanet(self, tmp_path):
        swapped = swap_losses('retinanet_r50_fpn_1x_coco', out=tmp_path / 'new.py')
        assert swapped.path.read_text() == swapped.text
        assert (
            swapped.text
            == '''"""IoU-balanced losses on retinanet_r50_fpn_1x_coco.py."""
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['iou_balanced'], allow_failed_imports=False)
model = dict(
    bbox_head=dict(
        type='IoUBalancedRetinaHead',
        loss_cls=dict(
            _delete_=True,
            type='IoUBalancedFocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            eta=1.5,
            loss_weight=1.0),
        loss_bbox=dict(
            _delete_=True,
            type='IoUBalancedSmoothL1Loss',
            beta=0.111,
            lambda_=1.5,
            target_stds=(1.0, 1.0, 1.0, 1.0),
            loss_weight=1.0)))
# Sets loss_weight in the first iteration, so that the loss is as large as without weights by the IoU.
custom_hooks = [dict(type='LocWeightCalibrationHook')]
'''
        )

    def test_a_cascade_with_hooks_and_imports(self, tmp_path):
        light = dict(RCNN, loss_bbox=dict(type='L1Loss', loss_weight=0.5))
        cfg = two_stage([RCNN, light])
        base = write(
            tmp_path,
            'a/base.py',
            f'model = {cfg.model.to_dict()!r}\n'
            "custom_hooks = [dict(type='NumClassCheckHook')]\n"
            "custom_imports = dict(imports=['mmdet.models'], allow_failed_imports=True)\n",
        )
        swapped = swap_losses(base, out=tmp_path / 'b' / 'c' / 'new.py')
        assert (
            swapped.text
            == '''"""IoU-balanced losses on base.py."""
_base_ = '../../a/base.py'

custom_imports = dict(imports=['mmdet.models', 'iou_balanced'], allow_failed_imports=True)
model = dict(
    roi_head=dict(
        bbox_head=[
            dict(
                _base_.model.roi_head.bbox_head[0],
                type='IoUBalancedShared2FCBBoxHead',
                loss_cls=dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.3, loss_weight=1.0),
                loss_bbox=dict(
                    type='IoUBalancedSmoothL1Loss',
                    beta=0.5,
                    lambda_=1.5,
                    target_stds=(0.1, 0.1, 0.2, 0.2),
                    loss_weight=1.0)),
            dict(
                _base_.model.roi_head.bbox_head[1],
                type='IoUBalancedShared2FCBBoxHead',
                loss_cls=dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.3, loss_weight=1.0),
                loss_bbox=dict(
                    type='IoUBalancedSmoothL1Loss',
                    beta=1.0,
                    lambda_=1.5,
                    target_stds=(0.1, 0.1, 0.2, 0.2),
                    loss_weight=0.5))]))
# Sets loss_weight in the first iteration, so that the loss is as large as without weights by the IoU.
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='LocWeightCalibrationHook',
        base_weight={'roi_head.bbox_head.0.loss_bbox': 1.0, 'roi_head.bbox_head.1.loss_bbox': 0.5})]
'''
        )
        loaded = Config.fromfile(swapped.path)
        assert loaded.to_dict() == swap_config(Config.fromfile(base)).to_dict()
        assert Config.fromstring(loaded.pretty_text, '.py').to_dict() == loaded.to_dict()  # survives a dump

    def test_a_base_in_the_same_folder(self, retina):
        assert "_base_ = './mine.py'" in swap_losses(retina, out=retina.parent / 'new.py').text

    def test_a_folder_whose_name_mmengine_cannot_read(self, tmp_path):
        swapped = swap_losses('retinanet_r50_fpn_1x_coco', out=tmp_path / 'a.py')
        assert "'mmdet::" in swapped.text
        swapped = swap_losses('mask-rcnn_r50_fpn_gn-ws-all_2x_coco', out=tmp_path / 'b.py')
        assert '/configs/gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py' in swapped.text
        assert Config.fromfile(tmp_path / 'b.py').model.roi_head.bbox_head.type == 'IoUBalancedShared4Conv1FCBBoxHead'

    def test_a_stage_below_another_list(self, tmp_path):
        stages = [dict(type='StandardRoIHead', bbox_head=RCNN), dict(type='StandardRoIHead', bbox_head=RCNN)]
        base = write(tmp_path, 'base.py', f'model = dict(type="FasterRCNN", roi_head={stages!r})\n')
        swapped = swap_losses(base, out=tmp_path / 'new.py')
        assert 'bbox_head=dict(\n                _base_.model.roi_head[1].bbox_head,' in swapped.text
        assert Config.fromfile(swapped.path).to_dict() == swap_config(Config.fromfile(base)).to_dict()

    def test_a_stage_that_stays(self, tmp_path):
        base = write(tmp_path, 'base.py', f'model = {two_stage([RCNN, RCNN]).model.to_dict()!r}\n')
        plan = planning.plan_swap(Config.fromfile(base))
        first = {keys: value for keys, value in plan.edits.items() if 1 not in keys}
        from balanced_det.swap.text import inheriting_config

        text = inheriting_config(planning.Swap(first, (), ()), Config.fromfile(base), './base.py', 'x')
        heads = Config.fromfile(write(tmp_path, 'new.py', text)).model.roi_head.bbox_head
        assert heads[0].type == 'IoUBalancedShared2FCBBoxHead'
        assert heads[1] == RCNN

    def test_diff_shows_the_change_alone(self, tmp_path):
        imports = dict(imports=['iou_balanced'])
        text = f"model = dict(type='RetinaNet', bbox_head={RETINA!r})\ncustom_imports = {imports!r}\n"
        swapped = swap_losses(write(tmp_path, 'mine.py', text), losses='cls', dry_run=True)
        changed = [line for line in swapped.diff('mine').splitlines() if line[0] in '+-']
        assert changed[:2] == ['--- mine', '+++ mine_iou-balanced.py']
        assert sorted(line.replace(' ', '').rstrip(',)') for line in changed[2:]) == [
            '+eta=1.5',
            "+type='IoUBalancedFocalLoss'",
            "+type='IoUBalancedRetinaHead'",
            "-type='FocalLoss'",
            "-type='RetinaHead'",
        ]


class TestDetectorsOfThisPackage:
    @pytest.mark.parametrize('method', METHODS)
    @pytest.mark.parametrize(
        ('config', 'head'),
        [
            ('ssd_resnet_fpn/ssd300_r50_fpn_coco-tiny.py', 'SSDHead'),
            ('dssd/dssd320_r50_coco-tiny.py', 'DSSDHead'),
            ('refinedet/refinedet320_r50_bccd.py', 'RefineDetHead'),
        ],
    )
    def test_the_written_config_builds_and_differs_in_the_head_alone(self, tmp_path, config, head, method):
        swapped = swap_losses(CONFIGS / config, method, out=tmp_path / 'new.py')
        stock, new = Config.fromfile(CONFIGS / config), Config.fromfile(tmp_path / 'new.py')
        assert new.to_dict() == swapped.result.to_dict() == swap_config(stock, method).to_dict()
        assert swapped.notes == ()
        assert 'custom_imports' not in swapped.text  # the original has them
        init_default_scope('mmdet')
        with torch.device('meta'):
            models = [MODELS.build(cfg.model) for cfg in (new, stock)]
        prefix = {'iou-balanced': 'IoUBalanced', 'harmonic': 'Harmonic'}[method]
        assert type(models[0].bbox_head).__name__ == prefix + head
        assert models[0].state_dict().keys() == models[1].state_dict().keys()
        check_heads(models[0])
        hooks = [HOOK] if method == 'iou-balanced' else []
        assert new.pop('custom_hooks') == [*stock.pop('custom_hooks'), *hooks]
        for key in ('type', 'loss_cls', 'loss_bbox', 'loss_joint'):
            new.model.bbox_head.pop(key, None)
        stock.model.bbox_head.pop('type')
        assert new.to_dict() == stock.to_dict()  # RefineDet's ARM among the rest

    def test_their_balanced_configs_are_balanced_already(self):
        config = CONFIGS / 'iou_balanced' / 'bccd' / 'refinedet320_r50_iou-balanced_bccd.py'
        with pytest.raises(SwapError, match='IoUBalancedRefineDetHead already'):
            swap_losses(config, 'harmonic', dry_run=True)


class TestFindConfig:
    @pytest.mark.parametrize(
        'name',
        [
            'retinanet_r50_fpn_1x_coco',
            'retinanet_r50_fpn_1x_coco.py',
            'retinanet/retinanet_r50_fpn_1x_coco',
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        ],
    )
    def test_names_of_mmdets_configs(self, name):
        assert find_config(name).parts[-2:] == ('retinanet', 'retinanet_r50_fpn_1x_coco.py')

    def test_a_file_comes_first(self, tmp_path, monkeypatch):
        file = write(tmp_path, 'retinanet_r50_fpn_1x_coco.py', '')
        monkeypatch.chdir(tmp_path)
        assert find_config('retinanet_r50_fpn_1x_coco.py') == file.resolve()

    @pytest.mark.parametrize(
        ('name', 'words'),
        [
            ('retinanet_r50_fpn_1x_cocoo', ['did you mean retinanet_r50_fpn_1x_coco']),
            ('configs/retinanet/retinanet_r50_fpn_1x_coco.py', ['did you mean retinanet_r50_fpn_1x_coco']),
            ('nothing-like-it', ['neither a config file', 'those are in']),
            ('retinanet_r50_fpn', ['neither a config file']),  # of the folder _base_: no detector to train
            (
                'override_category',
                ['3 configs of mmdet', 'glip/odinw/override_category, grounding_dino/odinw/override_category'],
            ),
        ],
    )
    def test_unknown_and_ambiguous_names(self, name, words):
        with pytest.raises(SwapError) as error:
            find_config(name)
        assert all(word in str(error.value) for word in words), error.value


class TestFiles:
    def test_default_name(self, retina, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert swap_losses(retina).path == Path('mine_iou-balanced.py')
        assert "_base_ = './configs/mine.py'" in (tmp_path / 'mine_iou-balanced.py').read_text()

    def test_an_existing_file_needs_force(self, retina, tmp_path):
        out = write(tmp_path, 'new.py', 'precious = 1\n')
        with pytest.raises(SwapError, match=r'new\.py exists.*--force'):
            swap_losses(retina, out=out)
        assert out.read_text() == 'precious = 1\n'
        assert swap_losses(retina, out=out, force=True).text == out.read_text()

    def test_a_dry_run_writes_nothing(self, retina, tmp_path):
        out = write(tmp_path, 'new.py', 'precious = 1\n')
        assert swap_losses(retina, out=out, dry_run=True).result.model.bbox_head.type == 'IoUBalancedRetinaHead'
        assert out.read_text() == 'precious = 1\n'
        swap_losses(retina, out=tmp_path / 'folder' / 'other.py', dry_run=True)
        assert not (tmp_path / 'folder').exists()

    def test_the_original_is_never_overwritten(self, retina, tmp_path):
        text = retina.read_text()
        (tmp_path / 'link.py').symlink_to(retina)
        for out in (retina, retina.parent / '..' / 'configs' / 'mine.py', tmp_path / 'link.py'):
            with pytest.raises(SwapError, match='is the original'):
                swap_losses(retina, out=out, force=True)
        assert retina.read_text() == text

    def test_out_must_be_a_config_that_can_be_written(self, retina, tmp_path):
        with pytest.raises(SwapError, match=r'must end in \.py'):
            swap_losses(retina, out=tmp_path)
        write(tmp_path, 'file', '')
        with pytest.raises(SwapError, match='cannot be written'):
            swap_losses(retina, out=tmp_path / 'file' / 'new.py')

    @pytest.mark.parametrize(
        ('text', 'words'),
        [
            ('model = dict(\n', ['SyntaxError']),
            ("_base_ = './nowhere.py'\n", ['FileNotFoundError', 'nowhere.py']),
            ("custom_imports = dict(imports=['no_such_package'])\n", ['ImportError', 'no_such_package']),
            ('model = dict(x=1 / 0)\n', ['ZeroDivisionError: division by zero']),
            (
                'from mmengine.config import read_base\nwith read_base():\n    from .b import *\n',
                ['pure-Python config', 'dump'],
            ),
            ('train_cfg = dict()\n', ['no model']),
        ],
    )
    def test_a_config_that_does_not_load(self, tmp_path, text, words):
        path = write(tmp_path, 'bad.py', text)
        with pytest.raises(SwapError) as error:
            swap_losses(path, out=tmp_path / 'new.py')
        assert all(word in str(error.value) for word in words), error.value
        assert len(str(error.value).splitlines()) == 1
        assert not (tmp_path / 'new.py').exists()

    def test_a_swapped_config_is_not_swapped_again(self, retina, tmp_path):
        swap_losses(retina, out=tmp_path / 'new.py')
        with pytest.raises(SwapError, match='IoUBalancedRetinaHead already'):
            swap_losses(tmp_path / 'new.py', out=tmp_path / 'newer.py')


class TestTool:
    @pytest.fixture
    def call(self, monkeypatch, tmp_path):
        def run_main(*arguments):
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr(sys, 'argv', ['swap_losses.py', *map(str, arguments)])
            monkeypatch.setattr(sys, 'path', list(sys.path))
            runpy.run_path(str(TOOL), run_name='__main__')

        return run_main

    def test_as_a_user_calls_it(self, retina, tmp_path):
        done = subprocess.run(
            [sys.executable, TOOL, retina, '-o', 'new.py', '--losses', 'loc', '--lambda', '1.0'],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': ''},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f'--- {retina}\n+++ new.py\n' in done.stdout
        assert "+            type='IoUBalancedSmoothL1Loss')," in done.stdout
        assert 'wrote new.py' in done.stdout
        head = Config.fromfile(tmp_path / 'new.py').model.bbox_head
        assert (head.loss_bbox.lambda_, head.loss_cls.type) == (1.0, 'FocalLoss')

    @pytest.mark.parametrize('method', METHODS)
    def test_of_a_refinedet(self, call, capsys, tmp_path, method):
        call(CONFIGS / 'refinedet' / 'refinedet320_r50_bccd.py', '--method', method, '-o', 'new.py')
        assert 'wrote new.py' in capsys.readouterr().out
        model = Config.fromfile(tmp_path / 'new.py').model
        assert model.bbox_head.type == METHODS[method].heads['RefineDetHead'].type
        assert model.arm_head.type == 'DSSDHead'

    def test_dry_run_prints_the_file_and_the_notes(self, call, capsys, tmp_path):
        call('faster-rcnn_r50_fpn_giou_1x_coco', '--dry-run', '--eta', '1.1')
        out = capsys.readouterr().out
        assert "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_giou_1x_coco.py'" in out
        assert 'eta=1.1' in out
        assert 'note: model.roi_head.bbox_head.loss_bbox stays as it is: GIoULoss' in out
        assert list(tmp_path.iterdir()) == []

    def test_an_error_has_no_traceback(self, call, tmp_path):
        with pytest.raises(SystemExit) as stop:
            call('fcos_r50-caffe_fpn_gn-head_1x_coco')
        # A text is what Python prints to stderr, with exit status 1.
        assert stop.value.code.startswith("error: model.bbox_head.type='FCOSHead' cannot be swapped")
        assert list(tmp_path.iterdir()) == []

    def test_help(self, call, capsys):
        with pytest.raises(SystemExit) as stop:
            call('-h')
        assert stop.value.code == 0
        text = capsys.readouterr().out
        for option in ('--method', '--out', '--force', '--dry-run', '--losses', '--eta', '--lambda', 'iou-balanced'):
            assert option in text

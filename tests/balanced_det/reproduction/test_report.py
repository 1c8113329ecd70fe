"""The tables with paper and measured numbers: expected texts are written by hand."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from work_dir_cases import A2, add_test, add_training, row_config

from balanced_det import papers
from balanced_det.reproduction.measurement import Measurement
from balanced_det.reproduction.report import Results, baseline, csv_text, markdown, read_results, summary

CONFIG = 'configs/iou_balanced/coco/{}.py'


@pytest.fixture
def table():
    """The first three rows of A2 with two of its columns."""
    return replace(papers.table('A2'), columns=('AP', 'AP90'), rows=papers.table('A2').rows[:3])


def results(**values):
    measured = {
        CONFIG.format(A2[key.replace('_', '.')]): Measurement(metrics, ('batch 2 x 6',), True)
        for key, metrics in values.items()
    }
    return Results(measured, ())


def test_measured_rows_and_gains(table):
    """By hand: 35.2 - 34.4 = 0.8 and 13.1 - 11.2 = 1.9 in the paper, 35.0 - 34.1 = 0.9 here."""
    found = results(A2_1={'AP': 34.1, 'AP90': 11.0}, A2_3={'AP': 35.0})
    assert markdown(table, found) == (
        '### A2. Each of the two losses in RetinaNet\n'
        '\n'
        '| row  | detector                                     |            | AP   | AP90 | remarks     |\n'
        '|------|----------------------------------------------|------------|------|------|-------------|\n'
        '| A2.1 | RetinaNet, ResNet50                          | paper      | 34.4 | 11.2 | \n'.replace(
            '| \n', '|             |\n'
        )
        + '|      |                                              | measured   | 34.1 | 11.0 | batch 2 x 6 |\n'
        '|      |                                              | difference | -0.3 | -0.2 |             |\n'
        '| A2.2 | RetinaNet, ResNet50, eta 1.5                 | paper      | 35.1 | 11.4 | not trained |\n'
        '| A2.3 | RetinaNet, ResNet50, lambda 1.5, w_loc 3.049 | paper      | 35.2 | 13.1 |             |\n'
        '|      |                                              | measured   | 35.0 |      | batch 2 x 6 |\n'
        '|      |                                              | difference | -0.2 |      |             |\n'
        '\n'
        'Gain over the baseline:\n'
        '\n'
        '| row  | over |          | AP   | AP90 |\n'
        '|------|------|----------|------|------|\n'
        '| A2.3 | A2.1 | paper    | +0.8 | +1.9 |\n'
        '|      |      | measured | +0.9 |      |\n'
    )


def test_a_gain_needs_both(table):
    assert 'Gain' not in markdown(table, results(A2_3={'AP': 35.0}))
    assert 'Gain' not in markdown(table, results(A2_1={'AP': 35.0}))
    assert 'Gain' not in markdown(table, results(A2_1={}, A2_3={'AP': 35.0}))  # the baseline found no box


def test_long_remarks_stand_once_below_the_table(table):
    marks = ('another data set: bccd', 'shortened: 2 of 12 epochs')
    names = [row.config for row in table.rows[:2]]
    lines = markdown(table, Results({name: Measurement({'AP': 1.0}, marks, False) for name in names}, ())).splitlines()
    assert lines.count('(1) another data set: bccd; shortened: 2 of 12 epochs') == 1
    assert [line.split('|')[-2].strip() for line in lines if '| measured' in line and 'RetinaNet' not in line][:2] == [
        '(1)',
        '(1)',
    ]


def test_csv_has_a_line_for_each_metric(table):
    text = csv_text([replace(table, rows=table.rows[:1])], results(A2_1={'AP': 34.1}))
    name = CONFIG.format(A2['A2.1'])
    head, first, second, *_ = text.splitlines()
    assert head == 'row,model,backbone,config,split,metric,paper,measured,difference,remarks'
    assert first == f'A2.1,RetinaNet,ResNet50,{name},val2017,AP,34.4,34.1,-0.3,batch 2 x 6'
    assert second == f'A2.1,RetinaNet,ResNet50,{name},val2017,AP50,53.9,,,batch 2 x 6'
    assert 'A2.1' not in csv_text([replace(table, rows=())], results())


@pytest.mark.parametrize(
    ('row', 'base'),
    [
        ('A1.16', 'A1.10'),
        ('A1.17', 'A1.11'),  # not A1.3, an SSD300 of another paper
        ('A2.4', 'A2.1'),
        ('A3.9', 'A3.1'),
        ('A4.8', 'A4.4'),
        ('A5.7', 'A5.2'),
        ('A6.4', 'A6.2'),
        ('B1.16', 'B1.10'),
        ('B2.24', 'B2.19'),
        ('B3.3', 'B3.1'),
        ('B4.2', None),
        ('A2.1', None),
        ('A1.1', None),
    ],
)
def test_baselines(row, base):
    (found,) = papers.find([row])
    other = baseline(papers.table(found.table_key), found)
    assert (other.key if other else None) == base


def test_test_dev_rows_say_that_they_were_measured_on_val2017():
    (row,) = papers.find(['A1.13'])
    found = Results({row.config: Measurement({'AP': 35.5}, ('batch 8 x 2',), True)}, ())
    assert found.of(row).marks == ('val2017 in place of test-dev', 'batch 8 x 2')
    other = Results({row.config: Measurement({'AP': 5.0}, ('another data set: bccd',), False)}, ())
    assert other.of(row).marks == ('another data set: bccd',)
    (same_config,) = papers.find(['A4.2'])
    assert found.of(same_config).marks == ('batch 8 x 2',)


def test_reading_goes_on_after_what_is_wrong(tmp_path):
    first, second, third = (A2[key] for key in ('A2.1', 'A2.2', 'A2.3'))
    add_training(tmp_path / first, row_config(first))
    add_test(tmp_path / first, row_config(first))
    (tmp_path / first / '20261122_100000' / '20261122_100000.json').write_text('{')
    add_training(tmp_path / second, row_config(third))  # of another config
    add_training(tmp_path / third, row_config(third))
    add_test(tmp_path / third, row_config(third))
    table = papers.table('A2')
    found = read_results(table.rows, tmp_path)
    assert sorted(found.measured) == [CONFIG.format(third), CONFIG.format(first)]
    assert found.measured[CONFIG.format(first)].marks[0] == 'last validation, after 12 of 12 epochs: no test'
    lines = summary([table], found).splitlines()
    assert lines[0] == '4 rows: 2 measured, 0 not tested, 1 left out, 1 not trained, 0 quoted by the papers'
    assert lines[1].startswith(f'left out: {tmp_path / first}/20261122_100000/20261122_100000.json is not JSON')
    assert lines[2].startswith(f'left out: {tmp_path / second} holds the results of another config: model.bbox_head')
    assert len(lines) == 3


def test_quoted_rows_say_so():
    text = markdown(papers.table('B2'), Results({}, ()))
    assert text.count('quoted by the paper') == 3
    assert text.count('not trained') == 21


def test_rows_that_were_trained_without_a_result_say_so_everywhere(tmp_path):
    first, second, third = (A2[key] for key in ('A2.1', 'A2.2', 'A2.3'))
    for stem, cfg in ((first, row_config(first)), (second, row_config(third))):
        add_training(tmp_path / stem, cfg)
        (tmp_path / stem / '20261121_155718' / 'vis_data' / 'scalars.json').write_text('{"loss": 1.0}\n')
    table = papers.table('A2')
    found = read_results(table.rows, tmp_path)
    text = markdown(table, found)
    remarks = [line.split('|')[-2].strip() for line in text.splitlines() if line.startswith('| A2.')]
    assert remarks == ['trained, not tested', '(1)', 'not trained', 'not trained']
    assert '\n(1) left out: holds the results of another config: model.bbox_head' in text
    lines = {line['row']: line['remarks'] for line in csv.DictReader(csv_text([table], found).splitlines())}
    assert lines['A2.1'] == 'trained, not tested'
    assert lines['A2.2'].startswith('left out: holds the results of another config: model.bbox_head')
    assert lines['A2.4'] == 'not trained'
    counts = '4 rows: 0 measured, 1 not tested, 1 left out, 2 not trained, 0 quoted by the papers'
    assert summary([table], found).startswith(counts)


def test_only_broken_files_are_left_out_with_their_name(tmp_path):
    (row,) = papers.find(['A2.1'])
    add_test(tmp_path / A2['A2.1'], row_config(A2['A2.1']))
    (tmp_path / A2['A2.1'] / '20261122_100000' / '20261122_100000.json').write_text('{')
    remark = read_results([row], tmp_path).remark(row)
    assert remark.startswith(f'left out: {tmp_path / A2["A2.1"]}/20261122_100000/20261122_100000.json is not JSON')


def test_problems_of_a_training_that_two_rows_need_are_said_once(tmp_path):
    rows = papers.find(['B2.23', 'B2.24'])
    stem = 'mask-rcnn_x101-32x8d_fpn_harmonic-1x_coco'
    add_training(tmp_path / stem, row_config(stem, 'harmonic/coco'))
    (tmp_path / stem / '20261121_155718' / 'vis_data' / 'config.py').write_text('model = dict(')
    assert len(read_results(rows, tmp_path).problems) == 1

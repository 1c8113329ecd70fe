"""The rows of the papers: against the text of the papers, against each other and against what the papers claim."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from balanced_det import compat, papers

COUNTS = dict(A1=21, A2=4, A3=10, A4=8, A5=10, A6=4, A7=4, B1=16, B2=24, B3=4, B4=2, B5=8)
ROWS = papers.rows()
# Table of the text: rows of the baseline, offset to the row with the losses.
BASELINES = {
    'A1': [(number, 6) for number in range(10, 16)],
    'A4': [(number, 4) for number in range(1, 5)],
    'A5': [(number, 5) for number in range(1, 6)],
    'A6': [(number, 2) for number in (1, 2)],
    'B1': [(1, 2), (2, 2), *((number, 6) for number in range(5, 11))],
    'B2': [*((number, 6) for number in range(4, 10)), *((number, 4) for number in range(16, 20))],
}
PAIRS = {
    table: [(f'{table}.{number}', f'{table}.{number + offset}') for number, offset in numbers]
    for table, numbers in BASELINES.items()
}


def row(key):
    (found,) = papers.find([key])
    return found


def reported(key):
    return row(key).reported


def gain(baseline, ours, metric):
    return round(reported(ours)[metric] - reported(baseline)[metric], 1)


# Against the text of the papers.


@pytest.fixture(scope='module')
def printed(repo_root):
    """Key of a table: its lines in the text of the paper, each a list of (column, cell)."""
    folder = Path(os.environ.get('PAPERS_ROOT', repo_root.parent / 'shared' / 'papers'))
    if not folder.is_dir():
        pytest.skip(f'no papers at {folder}; PAPERS_ROOT names the folder of their texts, *_losses.txt and *_det.txt')
    found = {}
    for paper, name in (('A', 'iou_balanced_losses.txt'), ('B', 'harmonic_det.txt')):
        tables = printed_tables((folder / name).read_text(encoding='utf-8'))
        found.update((f'{paper}{number}', lines) for number, lines in enumerate(tables, start=1))
    return found


def printed_tables(text):
    tables = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split('\t')]
        if 'AP' in cells:
            columns = [column_name(cell) for cell in cells]
            tables.append([])
        elif tables and any(column == 'AP' and number(cell) for column, cell in zip(columns, cells)):
            tables[-1].append(list(zip(columns, cells)))
    return tables


def column_name(cell):
    """'AP ₅₀', 'AP_{50}' and 'AP _S' become 'AP50', 'AP50' and 'APs'."""
    if not cell.startswith('AP'):
        return cell
    plain = re.sub(r'[ _{}]', '', cell).translate(str.maketrans('₀₁₂₃₄₅₆₇₈₉', '0123456789'))
    return 'AP' + plain[2:].lower()


def number(cell):
    """The number of '54.2' and of '54.2 (+2.5)', else None."""
    match = re.fullmatch(r'(\d+\.\d)(?: \(\+\d\.\d\))?', cell)
    return match and float(match[1])


def test_text_has_all_tables(printed):
    # The halves of Table 3 stand side by side.
    assert {key: len(lines) for key, lines in printed.items()} == {**COUNTS, 'A3': 5}


@pytest.mark.parametrize('key', [key for key in COUNTS if key != 'A3'])
def test_rows_are_the_printed_ones(printed, key):
    for line, ours in zip(printed[key], papers.table(key).rows):
        cells = dict(line)
        numbers = [(column, number(cell)) for column, cell in line if column in papers.METRICS]
        assert list(ours.reported.items()) == numbers, ours.key
        name = cells.get('Model') or cells.get('Method')
        if name:
            assert re.sub(r' *\[\d+]|\*', '', name) == ours.model
        for column in ('Backbone', 'Schedule'):
            assert cells.get(column, getattr(ours, column.lower())) == getattr(ours, column.lower()), ours.key
        for column, parameter in (('IoU-Cls', 'eta'), ('IoU-Loc', 'lambda')):
            if column in cells:
                assert (cells[column] == '✓') == (parameter in ours.hyper), ours.key
        for column, parameter in (('\N{GREEK SMALL LETTER ALPHA}', 'alpha'), ('\N{GREEK SMALL LETTER GAMMA}', 'gamma')):
            if column in cells:
                assert float(cells[column]) == ours.hyper[parameter], ours.key


def test_rows_of_table_a3_are_the_printed_ones(printed):
    left = [[float(cell) for _, cell in line[:2]] for line in printed['A3']]
    right = [[float(cell) for _, cell in line[2:]] for line in printed['A3']]
    rows = papers.table('A3').rows
    assert [[row.hyper['eta'], row.reported['AP']] for row in rows[:5]] == left
    assert [[row.hyper['lambda'], row.hyper['w_loc'], row.reported['AP']] for row in rows[5:]] == right


@pytest.mark.parametrize('key', ['B1', 'B2'])
def test_gains_in_brackets_are_differences_of_the_rows(printed, key):
    pairs = PAIRS[key]
    brackets = [re.search(r'\(\+(\d\.\d)\)', dict(line)['AP']) for line in printed[key]]
    assert {row for row, found in enumerate(brackets, start=1) if found} == {row_number(ours) for _, ours in pairs}
    for baseline, ours in pairs:
        assert float(brackets[row_number(ours) - 1][1]) == gain(baseline, ours, 'AP')


def row_number(key):
    return int(key.partition('.')[2])


# Against each other.


def test_there_are_115_rows_in_the_order_of_the_papers():
    assert [row.key for row in ROWS] == [
        f'{table}.{number}' for table, count in COUNTS.items() for number in range(1, count + 1)
    ]
    assert len(ROWS) == 115
    assert list(papers.tables()) == list(COUNTS)
    assert [row for table in papers.tables().values() for row in table.rows] == ROWS


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.key)
def test_numbers_are_plausible(row):
    values = row.reported
    assert list(values) == list(papers.table(row.table_key).columns)
    assert all(0 < value < 100 and round(value, 1) == value for value in values.values())
    thresholds = [values[name] for name in ('AP50', 'AP60', 'AP70', 'AP75', 'AP80', 'AP90') if name in values]
    assert thresholds == sorted(thresholds, reverse=True)
    if 'AP50' in values:
        assert values.get('AP90', 0) < values['AP'] < values['AP50']
    if 'APs' in values:
        assert values['APs'] < values['APm'] < values['APl']
        assert values['APs'] < values['AP'] < values['APl']


# Row by row the same model under the same conditions, printed in two tables.
@pytest.mark.parametrize(
    ('first', 'second'),
    [
        ('A2.1', 'A3.1'),
        ('A2.1', 'A3.6'),
        ('A2.2', 'A3.4'),
        ('A2.3', 'A3.9'),
        ('B3.2', 'B4.2'),
        ('B3.3', 'B5.5'),
        ('B3.4', 'B5.3'),
        ('B3.4', 'B5.7'),
    ],
)
def test_rows_printed_twice_agree(first, second):
    common = reported(first).keys() & reported(second).keys()
    assert common
    assert {name: reported(first)[name] for name in common} == {name: reported(second)[name] for name in common}
    assert row(first).config == row(second).config


def neutral_left_out(hyper):
    """The hyper-parameters without an eta of 0 and without a lambda of 0 and its w_loc: those are the stock losses."""
    left_out = {name for name in ('eta', 'lambda') if hyper.get(name) == 0}
    if 'lambda' in left_out:
        left_out.add('w_loc')
    return {name: value for name, value in hyper.items() if name not in left_out}


def test_rows_of_a_config_have_the_same_losses():
    hyper = {}
    for row in ROWS:
        if not row.quoted:
            assert neutral_left_out(row.hyper) == hyper.setdefault(row.config, neutral_left_out(row.hyper)), row.key


def test_only_comparisons_with_other_papers_are_quoted():
    quoted = [row for row in ROWS if row.quoted]
    assert [row.key for row in quoted] == [*(f'A1.{n}' for n in range(1, 8)), *(f'B2.{n}' for n in range(1, 4))]
    assert [row.key for row in quoted if row.config is None] == ['A1.1', 'A1.6']
    assert all(row.hyper == {} and row.train_config is None and row.test_config is None for row in quoted)


@pytest.mark.parametrize('row', [row for row in ROWS if row.quoted and row.config], ids=lambda row: row.key)
def test_stock_configs_are_there(row):
    places = compat.mmdet_places('configs/' + row.config.partition('::')[2])
    assert any(place.is_file() for place in places)


@pytest.mark.parametrize('row', [row for row in ROWS if not row.quoted], ids=lambda row: row.key)
def test_config_name_says_what_the_row_says(row):
    folder, stem = Path(row.config).parts[:3], Path(row.config).stem
    method = {'A': 'iou_balanced', 'B': 'harmonic'}[row.paper]
    assert folder == ('configs', method, row.data.replace('voc0712', 'voc'))
    assert stem.endswith(f'_{row.data}')
    model = row.model.replace('IoU-balanced ', '').partition(' w/')[0].lower()
    # Table A5 prints SSD500 for SSD512.
    for printed, named in ((' r-cnn', '-rcnn'), ('foveabox', 'fovea'), ('500', '512')):
        model = model.replace(printed, named)
    assert stem.split('_')[0] == model
    layers = re.search(r'ResNe[Xx]?t?[-\w]*?-?(\d+)(-FPN)?$', row.backbone)
    if layers:
        assert re.search(r'_([rx]\d+)', stem)[1] == ('x' if 'ResNeXt' in row.backbone else 'r') + layers[1]
    else:
        assert row.backbone == 'VGG16'
    losses = neutral_left_out(row.hyper)
    assert ('iou-balanced' in stem) == bool({'eta', 'lambda'} & losses.keys())
    assert ('iou-balanced-cls' in stem) == ('eta' in losses and 'lambda' not in losses)
    assert ('iou-balanced-loc' in stem) == ('lambda' in losses and 'eta' not in losses)
    assert ('harmonic' in stem) == ('harmonic' in losses)
    assert ('no-tc' in stem, 'no-hiou' in stem) == (losses.get('tc') is False, losses.get('hiou') is False)
    for name, value in re.findall(r'(eta|lambda|alpha|gamma)-(\d\.\d)', stem):
        assert float(value) == losses[name]


def test_configs_to_train_and_to_test():
    assert row('A4.6').train_config == row('A4.6').test_config == row('A4.6').config
    assert row('A1.19').train_config == row('A4.6').config
    assert row('A1.19').test_config == 'configs/iou_balanced/coco/retinanet_r50_fpn_iou-balanced-1x_coco_test-dev.py'
    assert row('B2.24').train_config == row('B2.23').config
    assert row('B2.24').test_config == row('B2.24').config.replace('.py', '_test-dev.py')


def test_hyper_parameters_of_the_defaults():
    """Eta, lambda, alpha and gamma are those of the papers but in the ablations and in Faster R-CNN of paper A."""
    values = Counter(
        (name, row.hyper[name])
        for row in ROWS
        if row.table_key not in ('A3', 'A7', 'B3', 'B4', 'B5')
        for name in row.hyper
        if name != 'w_loc'
    )
    assert values == {
        ('eta', 1.5): 6 + 2 + 4 + 5 + 2,
        ('lambda', 1.5): 6 + 2 + 4 + 5 + 2,
        **dict.fromkeys([('harmonic', True), ('tc', True), ('hiou', True), ('alpha', 1.5), ('gamma', 0.8)], 8 + 11),
    }


# Against what the papers claim in their text.


@pytest.mark.parametrize(
    ('table', 'metrics', 'low', 'high'),
    [
        ('A1', ['AP'], 1.0, 1.7),
        ('A1', ['AP75'], 1.0, 2.4),
        ('A1', ['AP50'], 0.1, 0.8),
        ('A4', ['AP'], 1.1, 1.4),
        ('A4', ['AP50', 'AP60'], 0.1, 0.8),
        ('A4', ['AP80', 'AP90'], 1.6, 2.6),
        ('A5', ['AP'], 1.3, 1.5),
        ('A5', ['AP50'], 0.1, 0.5),
        ('A6', ['AP'], 1.0, 1.2),
    ],
)
def test_range_of_gains_in_the_text_is_that_of_the_table(table, metrics, low, high):
    gains = [gain(*pair, metric) for pair in PAIRS[table] for metric in metrics]
    assert (min(gains), max(gains)) == (low, high)


@pytest.mark.parametrize(
    ('table', 'metrics', 'low', 'high'),
    [
        ('A5', ['AP80', 'AP90'], 0.7, 3.4),  # the text: 1.6 to 3.9
        ('B1', ['AP80'], 3.4, 6.1),  # the text: 5 to 6
        ('B1', ['AP90'], 3.2, 10.1),  # the text: 10
    ],
)
def test_range_of_gains_that_the_text_gives_otherwise_is_in_the_notes(table, metrics, low, high):
    gains = [gain(*pair, metric) for pair in PAIRS[table] for metric in metrics]
    assert (min(gains), max(gains)) == (low, high)
    (note,) = [note for note in papers.table(table).notes if 'names a gain' in note and metrics[-1] in note]
    assert str(low) in note
    assert str(high) in note


@pytest.mark.parametrize(
    ('baseline', 'ours', 'gains'),
    [
        ('A1.11', 'A1.17', dict(AP=1.7)),
        ('A1.12', 'A1.18', dict(AP=1.3)),
        ('A1.10', 'A1.16', dict(AP=1.0)),
        *((f'A1.{number}', f'A1.{number + 6}', dict(AP=1.1)) for number in (13, 14, 15)),
        ('A1.8', 'A1.19', dict(AP=0.8, AP75=0.8)),  # RetinaNet beyond Faster R-CNN: 0.4 to 0.8 and 0.2 to 0.8
        ('A1.9', 'A1.20', dict(AP=0.4, AP75=0.2)),
        ('A2.1', 'A2.2', dict(AP=0.7)),
        ('A2.1', 'A2.3', dict(AP=0.8, AP50=-0.2, AP80=1.8, AP90=1.9)),
        ('A2.1', 'A2.4', dict(AP=1.3)),
        ('A7.1', 'A7.2', dict(AP=0.4)),
        ('A7.1', 'A7.3', dict(AP=0.6, AP70=1.1, AP75=0.8, AP80=1.4, AP90=1.2)),  # the text: AP70 to AP90 1.1 to 1.4
        ('B3.1', 'B3.2', dict(AP=1.2)),
        ('B3.2', 'B3.3', dict(AP=0.2)),
        ('B3.2', 'B3.4', dict(AP=0.7)),
        ('B2.23', 'B2.24', dict(AP=2.9)),
    ],
)
def test_gains_in_the_text_hold(baseline, ours, gains):
    assert {metric: gain(baseline, ours, metric) for metric in gains} == gains


@pytest.mark.parametrize(
    ('table', 'gains'),
    [('B1', [2.5, 2.4, 3.5, 3.4, 3.4, 3.1, 3.5, 4.1]), ('B2', [1.9, 1.7, 1.4, 2.4, 1.5, 1.4, 1.8, 1.6, 1.6, 1.7])],
)
def test_gains_in_the_text_of_paper_b_hold(table, gains):
    assert [gain(*pair, 'AP') for pair in PAIRS[table]] == gains


@pytest.mark.parametrize(
    'row', [row for key in ('A5', 'B1') for row in papers.table(key).rows], ids=lambda row: row.key
)
def test_ap_of_voc_is_over_the_ten_thresholds(row):
    """Neither over the five printed columns nor, as paper B says, over 0.5 to 0.9.

    AP falls ever faster with the threshold, so a value in the middle is at least the mean of its neighbours and the
    mean over 0.5, 0.55 ... 0.9 at least what straight lines between the columns give. The AP at 0.95 is between 0 and
    that at 0.9.
    """
    columns = [row.reported[name] for name in ('AP50', 'AP60', 'AP70', 'AP80', 'AP90')]
    nine = sum(columns) + sum((left + right) / 2 for left, right in zip(columns, columns[1:]))
    assert row.reported['AP'] < min(sum(columns) / 5, nine / 9) - 3
    assert nine / 10 - 0.1 < row.reported['AP'] < (nine + columns[-1]) / 10 + 0.5


def test_best_values_of_the_ablations_are_the_papers_choice():
    def best(rows):
        return max(rows, key=lambda row: row.reported['AP']).hyper

    assert best(papers.table('A3').rows[:5]) == {'eta': 1.5}
    assert best(papers.table('A3').rows[5:]) == {'lambda': 1.5, 'w_loc': 3.049}
    assert best(papers.table('B5').rows) == row('B1.3').hyper


# Looking up.


def test_find_keeps_the_order_and_has_each_row_once():
    assert [row.key for row in papers.find(['b4', 'A2.3', 'A2', 'B4.1'])] == [
        *('B4.1', 'B4.2', 'A2.3'),
        *('A2.1', 'A2.2', 'A2.4'),
    ]


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('A8', "no table or row 'A8': near ones are A1, A2, A3, A4, A5, A6, A7; there are the tables A1 to A7"),
        ('a4.9', "no table or row 'a4.9': A4 has the rows A4.1 to A4.8"),
        ('A4.', 'A4 has the rows'),
        ('C3', 'near ones are A3, B3;'),
        ('retinanet', "no table or row 'retinanet': there are the tables"),
        ('', "no table or row '': there are the tables"),
    ],
)
def test_unknown_key_names_near_ones(key, message):
    with pytest.raises(papers.UnknownRowError, match=re.escape(message)):
        papers.find(['A1', key])
    with pytest.raises(papers.UnknownRowError, match=re.escape(message)):
        papers.table(key)


PAGE = """# A paper

## A1. A caption

- data: coco
- split: val2017
- configs: configs/mine
- backbone: R1
- schedule: 1x
- setup: Trained on
  two GPUs.
- note: First.
- note: Second.

| model | AP   | AP50 | eta | tc  | config           |
|-------|-----:|-----:|----:|-----|------------------|
| First | 10.0 | 20.5 | 1.5 | no  | first.py         |
| Other |  9.9 |      |     |     | mmdet::a/b.py    |
| Third |  1.0 |  2.0 |   0 | yes | quoted only      |
"""


@pytest.fixture
def page(tmp_path):
    """Writes the page with some text replaced and returns its path."""

    def write(old='', new=''):
        assert old in PAGE
        file = tmp_path / 'page.md'
        file.write_text(PAGE.replace(old, new))
        return file

    return write


def test_page_is_read(page):
    (table,) = papers.read_tables(page())
    assert (table.key, table.caption, table.setup, table.notes, table.columns) == (
        *('A1', 'A caption', 'Trained on two GPUs.'),
        *(('First.', 'Second.'), ('AP', 'AP50')),
    )
    shared = dict(paper='A', table=1, backbone='R1', schedule='1x', data='coco', split='val2017')
    assert table.rows == tuple(
        papers.Row(number=number, **shared, **own)
        for number, own in enumerate(
            [
                dict(
                    model='First',
                    config='configs/mine/first.py',
                    hyper={'eta': 1.5, 'tc': False},
                    reported={'AP': 10.0, 'AP50': 20.5},
                ),
                dict(model='Other', config='mmdet::a/b.py', hyper={}, reported={'AP': 9.9}),
                dict(model='Third', config=None, hyper={'eta': 0, 'tc': True}, reported={'AP': 1.0, 'AP50': 2.0}),
            ],
            start=1,
        )
    )


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('## A1. ', '## Table 1: ', 'section "Table 1: A caption": the heading must be like "## A2. Caption"'),
        ('| First | 10.0 |', '| First |', 'section "A1. A caption": row 1 has 5 cells for 6 columns'),
        ('20.5', '20,5', "row 1: could not convert string to float: '20,5'"),
        ('| AP50 |', '| AP51 |', 'unknown columns AP51'),
        ('- split: val2017\n', '', 'neither an item nor a column gives split'),
        ('- schedule: 1x\n', '', 'neither an item nor a column gives schedule'),
        (PAGE[PAGE.index('| model') :], 'Nothing.\n', 'no table with a heading, a rule and rows'),
    ],
)
def test_malformed_page_is_refused(page, old, new, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        papers.read_tables(page(old, new))

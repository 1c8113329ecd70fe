"""tools/report.py from its command line, on folders in mmengine's form."""

from __future__ import annotations

import csv
import importlib.util
import sys

import pytest
from work_dir_cases import A2, ROOT, add_test, add_training, row_config

from balanced_det.reproduction import generated


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    """Run the tool with some arguments; returns what it printed."""
    spec = importlib.util.spec_from_file_location('report', ROOT / 'tools' / 'report.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    (tmp_path / 'work').mkdir()

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['report.py', *map(str, arguments), '--work-dirs', str(tmp_path / 'work')])
        tool.main()
        return capsys.readouterr().out

    return run


def test_without_any_training(report, tmp_path):
    text = report()
    assert text.count('\n### ') + 1 == 12
    assert '\n115 rows: 0 measured, 0 not tested, 0 left out, 105 not trained, 10 quoted by the papers\n' in text


def test_one_row_beside_the_paper_as_text_markdown_and_csv(report, tmp_path):
    folder = tmp_path / 'work' / A2['A2.1']
    add_training(folder, row_config(A2['A2.1']))
    add_test(folder, row_config(A2['A2.1']))
    text = report('A2.1', '--out', tmp_path / 'out')
    assert '1 rows: 1 measured, 0 not tested, 0 left out, 0 not trained, 0 quoted' in text
    markdown = (tmp_path / 'out' / 'report.md').read_text()
    assert markdown in text
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in markdown.splitlines() if line[:1] == '|']
    # 35.0 - 34.4, 54.5 - 53.9, 37.2 - 36.6; APs is -1 in the test: no small box; AP60 ... AP90 are not in it.
    assert cells[2][2:6] == ['paper', '34.4', '53.9', '36.6']
    assert cells[3][2:6] == ['measured', '35.0', '54.5', '37.2']
    assert cells[4][2:] == ['difference', '+0.6', '+0.6', '+0.6', '', '+0.8', '+0.1', '', '', '', '', '']
    with (tmp_path / 'out' / 'report.csv').open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line['metric'], line['difference']) for line in lines[:2]] == [('AP', '0.6'), ('AP50', '0.6')]


def test_unknown_table(report):
    with pytest.raises(SystemExit, match=r'error: .*A9'):
        report('A9')


def test_check_of_the_repository(report):
    assert report('--check') == 'The generated files are up to date.\n'


def test_check_fails_with_the_difference(report, monkeypatch):
    monkeypatch.setattr(generated, 'stale', lambda: '-old\n+new\n')
    with pytest.raises(SystemExit, match=r'-old\n\+new\n\nThe generated files are stale'):
        report('--check')


def test_trials_are_not_recorded(report, tmp_path, monkeypatch):
    cfg = row_config(A2['A2.1'])
    cfg.train_cfg.max_epochs = 2
    add_training(tmp_path / 'work' / A2['A2.1'], cfg, epochs=2)
    add_test(tmp_path / 'work' / A2['A2.1'], cfg, 'epoch_2.pth')
    monkeypatch.setattr(generated, 'write_text', lambda *_: pytest.fail('something was recorded'))
    text = report('A2', '--record')
    name = f'configs/iou_balanced/coco/{A2["A2.1"]}.py'
    assert f'not recorded: {name}: shortened: 2 of 12 epochs' in text


def test_a_folder_that_is_not_there(report, tmp_path, capsys):
    (tmp_path / 'work').rmdir()
    with pytest.raises(SystemExit):
        report('A2')
    assert f'--work-dirs {tmp_path / "work"}: there is no such folder' in capsys.readouterr().err


@pytest.mark.parametrize('task', ['--update', '--check'])
def test_a_report_that_is_asked_for_is_written_whatever_else_is(report, tmp_path, monkeypatch, task):
    monkeypatch.setattr(generated, 'update', list)
    monkeypatch.setattr(generated, 'stale', str)
    text = report(task, '--out', tmp_path / 'out')
    assert '### A2. ' in (tmp_path / 'out' / 'report.md').read_text()
    assert (tmp_path / 'out' / 'report.csv').is_file()
    assert 'up to date' in text.splitlines()[-1]


@pytest.mark.parametrize('task', ['--update', '--check'])
def test_the_generated_files_alone(report, monkeypatch, task):
    monkeypatch.setattr(generated, 'update', list)
    monkeypatch.setattr(generated, 'stale', str)
    assert len(report(task).splitlines()) == 1

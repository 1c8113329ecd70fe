"""Jobs on one machine: side by side, resumed, skipped, failing. Small programs stand for trainings and tests."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

import pytest
from fake_tools import write_config, write_decoy_python, write_fake_tools

from balanced_det.reproduction import folder, jobs, local
from balanced_det.reproduction.jobs import Job, ordered
from balanced_det.reproduction.local import Machine, Runner


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, 'TOOLS', write_fake_tools(tmp_path / 'tools'))
    monkeypatch.setattr(local, 'POLL', 0.02)
    monkeypatch.setenv('PATH', f'{write_decoy_python(tmp_path / "decoy")}:{os.environ["PATH"]}')


def make_job(tmp_path, name='A1.1', **values) -> Job:
    stem = values.pop('stem', name.lower())
    cfg = write_config(tmp_path / f'{stem}.py')
    (tmp_path / stem).mkdir(exist_ok=True)
    return Job((name,), tmp_path / f'{stem}.py', cfg, tmp_path / stem, **values)


def make_runner(slots=('',), launcher='none'):
    news, widths = [], []
    runner = Runner(Machine(list(slots), launcher), news.append, lambda going: widths.append(len(going)))
    return runner, news, widths


def calls(job, folder=None):
    return [json.loads(line) for line in ((folder or job.folder) / 'calls').read_text().splitlines()]


def test_train_then_test_then_nothing(tmp_path):
    job = make_job(tmp_path)
    assert job.state() == 'not trained'
    runner, news, _ = make_runner()
    runner.run([job])
    assert runner.failed == {}
    assert job.state() == 'done'
    config, folder = str(job.config), str(job.folder)
    assert [call[:2] for call in calls(job)] == [
        ['train', [config, '--work-dir', folder, '--auto-scale-lr']],
        ['test', [config, f'{folder}/epoch_3.pth', '--work-dir', folder]],
    ]
    assert news == [
        f'A1.1: train, log in {folder}/train.log',
        f'A1.1: test, log in {folder}/test.log',
        'A1.1: done',
    ]
    runner, news, _ = make_runner()
    runner.run([job])
    assert news == []


def test_a_broken_training_shows_its_log_stops_no_other_and_resumes(tmp_path):
    bad, good = make_job(tmp_path, 'A1.1'), make_job(tmp_path, 'A1.2')
    (bad.folder / 'fail').touch()
    runner, _, _ = make_runner(['', ''])
    runner.run([bad, good])
    assert good.state() == 'done'
    assert list(runner.failed) == ['A1.1']
    assert 'train ended with exit code 1' in runner.failed['A1.1']
    assert f'{bad.folder}/train.log' in runner.failed['A1.1']
    assert 'no such thing' in runner.failed['A1.1']
    assert bad.state() == 'resumes after epoch 1 of 3'

    (bad.folder / 'fail').unlink()
    runner, _, _ = make_runner()
    runner.run([bad, good])
    assert bad.state() == 'done'
    assert calls(bad)[1][1][-2:] == ['--resume', f'{bad.folder}/epoch_1.pth']
    assert len(calls(good)) == 2  # was not touched again


def test_a_killed_training_resumes(tmp_path):
    job = make_job(tmp_path)
    (job.folder / 'slow').touch()
    runner, _, _ = make_runner()

    def kill(going):
        if (job.folder / 'epoch_1.pth').is_file():
            os.kill(going[0].process.pid, signal.SIGKILL)

    runner.report = kill
    runner.run([job])
    assert 'exit code -9' in runner.failed['A1.1']
    (job.folder / 'slow').unlink()
    runner, _, _ = make_runner()
    runner.run([job])
    assert job.state() == 'done'
    assert calls(job)[1][1][-2:] == ['--resume', f'{job.folder}/epoch_1.pth']


def test_an_interruption_stops_what_runs(tmp_path):
    job = make_job(tmp_path)
    (job.folder / 'slow').touch()
    runner, _, _ = make_runner()
    going = []

    def interrupt(running):
        going.extend(running)
        raise KeyboardInterrupt

    runner.report = interrupt
    with pytest.raises(KeyboardInterrupt):
        runner.run([job])
    assert going[0].process.returncode == -signal.SIGTERM


def test_as_many_side_by_side_as_there_are_gpus(tmp_path):
    rows = [make_job(tmp_path, f'A1.{number}', gpus=2) for number in range(1, 4)]
    runner, _, widths = make_runner(['4', '5', '6', '7'], 'pytorch')
    runner.run(rows)
    assert max(widths) == 2
    environments = [calls(job)[0][2] for job in rows]
    assert [env['CUDA_VISIBLE_DEVICES'] for env in environments[:2]] == ['4,5', '6,7']
    assert environments[2]['CUDA_VISIBLE_DEVICES'] in ('4,5', '6,7')
    assert environments[0]['PORT'] != environments[1]['PORT']
    assert calls(rows[0])[0][1][-2:] == ['--launcher', 'pytorch']
    assert calls(rows[0])[0][3] == sys.executable


def test_processes_without_gpus_get_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    job = make_job(tmp_path)
    make_runner()[0].run([job])
    assert calls(job)[0][2] == {'CUDA_VISIBLE_DEVICES': None, 'OMP_NUM_THREADS': '1', 'PORT': None}


def test_what_another_needs_comes_first(tmp_path):
    first = make_job(tmp_path, 'A4.2')
    second = make_job(tmp_path, 'A6.1', needs=first)
    assert ordered([second, first]) == [first, second]
    runner, _, widths = make_runner(['', ''])
    runner.run(ordered([second, first]))
    assert max(widths) == 1
    assert calls(second)[0][1][-2:] == ['--cfg-options', f'load_from={first.folder}/epoch_3.pth']


def test_a_resumed_training_is_not_given_its_first_checkpoint_again(tmp_path):
    """With ``load_from`` and ``--resume`` mmdet would load the one and drop the other."""
    first = make_job(tmp_path, 'A4.2')
    second = make_job(tmp_path, 'A6.1', needs=first)
    (second.folder / 'epoch_1.pth').touch()
    (second.folder / 'last_checkpoint').write_text('epoch_1.pth')
    assert second.train_step().options[-2:] == ('--resume', f'{second.folder}/epoch_1.pth')


def test_a_folder_that_was_moved_resumes_from_what_is_in_it(tmp_path):
    job = make_job(tmp_path)
    (job.folder / 'epoch_2.pth').touch()
    (job.folder / 'last_checkpoint').write_text('/where/it/was/epoch_2.pth')
    assert job.train_step().options[-2:] == ('--resume', f'{job.folder}/epoch_2.pth')


def test_a_multi_scale_test_waits_for_the_training_that_it_tests(tmp_path):
    plain = make_job(tmp_path, 'B2.23')
    tta = make_job(tmp_path, 'B2.24', stem='b2-tta', needs=plain)
    assert [step.name for step in tta.steps()] == ['test']
    assert tta.state() == 'not tested, B2.23 has to be trained first'


def test_a_training_says_which_one_it_begins_from(tmp_path):
    first = make_job(tmp_path, 'A4.2')
    assert make_job(tmp_path, 'A6.1', needs=first).state() == 'not trained, A4.2 has to be trained first'
    make_runner()[0].run([first])
    assert make_job(tmp_path, 'A6.1', needs=first).state() == 'not trained'


def test_what_needs_a_failed_training_fails_too_and_says_so(tmp_path):
    first = make_job(tmp_path, 'A4.2')
    second = make_job(tmp_path, 'A6.1', needs=first)
    (first.folder / 'fail').touch()
    runner, _, _ = make_runner()
    runner.run([first, second])
    assert runner.failed['A6.1'] == 'a4.2, whose checkpoint it needs, has failed'
    assert not (second.folder / 'calls').exists()


def test_a_multi_scale_test_trains_nothing(tmp_path):
    plain = make_job(tmp_path, 'B2.23')
    tta = make_job(tmp_path, 'B2.24', stem='b2-tta', needs=plain)
    make_runner()[0].run([plain, tta])
    assert [call[:2] for call in calls(tta)] == [
        ['test', [str(tta.config), f'{plain.folder}/epoch_3.pth', '--work-dir', str(tta.folder), '--tta']]
    ]
    assert tta.state() == 'done'


def with_submission(job: Job) -> Job:
    prefix = f'work_dirs/{job.config.stem}/detections_test-dev2017_x_results'
    job.test_dev_config.write_text(f'test_evaluator = dict(outfile_prefix={prefix!r})')
    return job


def test_the_submission_file_is_written_apart_from_the_results(tmp_path):
    job = with_submission(make_job(tmp_path, 'A1.8', test_dev=True))
    assert [step.name for step in job.steps()] == ['train', 'test', 'test-dev']
    make_runner()[0].run([job])
    place = job.folder / 'test-dev'
    names = {path.name for path in place.glob('*.json')}
    assert names == {f'detections_test-dev2017_x_results.{kind}.json' for kind in ('bbox', 'segm')}
    (call,) = calls(job, place)
    assert call[1][:2] == [str(tmp_path / 'a1.8_test-dev.py'), f'{job.folder}/epoch_3.pth']
    assert '--tta' not in call[1]
    assert job.state() == 'done'


def test_the_submission_file_of_a_multi_scale_test_is_a_multi_scale_one(tmp_path):
    plain = make_job(tmp_path, 'B2.23')
    tta = with_submission(make_job(tmp_path, 'B2.24', stem='b2-tta', needs=plain, test_dev=True))
    make_runner()[0].run([plain, tta])
    (call,) = calls(tta, tta.folder / 'test-dev')
    assert call[1][1] == f'{plain.folder}/epoch_3.pth'
    assert '--tta' in call[1]
    assert tta.state() == 'done'


def test_a_cut_off_submission_file_is_none(tmp_path):
    job = with_submission(make_job(tmp_path, 'A1.8', test_dev=True))
    place = job.folder / 'test-dev'
    place.mkdir()
    (place / 'fail').touch()
    runner, _, _ = make_runner()
    runner.run([job])
    assert 'killed while it wrote' in runner.failed['A1.8']
    assert not job.submission.exists()
    assert [step.name for step in job.steps()] == ['test-dev']
    (place / 'fail').unlink()
    make_runner()[0].run([job])
    assert job.submission.read_text() == '[]'


def test_a_submission_file_of_an_older_checkpoint_is_made_again(tmp_path):
    job = with_submission(make_job(tmp_path, 'A1.8', test_dev=True))
    make_runner()[0].run([job])
    assert job.steps() == []
    os.utime(job.submission, (0, 0))
    assert [step.name for step in job.steps()] == ['test-dev']


def test_a_test_that_leaves_nothing_is_not_repeated_for_ever(tmp_path):
    job = make_job(tmp_path)
    (job.folder / 'silent').touch()
    runner, _, _ = make_runner()
    runner.run([job])
    assert runner.failed['A1.1'] == f'test ended well but left no result; see {job.folder}/test.log'


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    job = make_job(tmp_path)
    lock = folder.locked(job.folder)
    runner, _, _ = make_runner()
    runner.run([job])
    assert runner.failed['A1.1'] == f'another process is at work in {job.folder}'
    lock.close()
    runner, _, _ = make_runner()
    runner.run([job])
    assert runner.failed == {}


def test_a_row_that_another_process_has_done_meanwhile_is_dropped(tmp_path):
    rows = [make_job(tmp_path, 'A1.1'), make_job(tmp_path, 'A1.2')]
    runner, news, _ = make_runner()

    def meanwhile(going):
        if not rows[1].is_tested:
            make_runner()[0].run(rows[1:])

    runner.report = meanwhile
    runner.run(rows)
    assert runner.failed == {}
    assert [line for line in news if line.startswith('A1.2')] == ['A1.2: done']
    assert len(calls(rows[1])) == 2


def break_scalars(job: Job) -> None:
    session = job.folder / '20260101_000000' / 'vis_data'
    session.mkdir(parents=True)
    (session / 'config.py').write_text(f'_base_ = {str(job.config)!r}')
    (session / 'scalars.json').write_text('{"lr": 0.0\n{"loss": 1.0}\n')


def test_a_broken_file_in_one_folder_stops_no_other_row(tmp_path):
    """One that is broken when its row's turn comes, and one that its own training leaves broken."""
    rows = [make_job(tmp_path, f'A1.{number}') for number in (1, 2, 3)]
    (rows[0].folder / 'break').touch()
    runner, _, _ = make_runner()

    def meanwhile(going):
        if not (rows[1].folder / '20260101_000000').is_dir():
            break_scalars(rows[1])

    runner.report = meanwhile
    runner.run(rows)
    assert list(runner.failed) == ['A1.1', 'A1.2']
    assert all('scalars.json, line 1 is not JSON' in reason for reason in runner.failed.values())
    assert rows[2].state() == 'done'  # on the only slot
    for job in rows:
        folder.locked(job.folder).close()


def test_a_folder_that_cannot_be_made_stops_no_other_row(tmp_path):
    bad, good = make_job(tmp_path, 'A1.1'), make_job(tmp_path, 'A1.2')
    bad.folder.rmdir()
    bad.folder.touch()
    runner, _, _ = make_runner()
    runner.run([bad, good])
    assert runner.failed == {'A1.1': f"[Errno 17] File exists: '{bad.folder}'"}
    assert good.state() == 'done'


def test_progress_is_read_from_the_log(tmp_path):
    job = make_job(tmp_path)
    (job.folder / 'slow').touch()
    runner, _, _ = make_runner()
    seen = []

    def watch(going):
        seen.append(local.describe(going))
        if seen[-1].endswith('0:00:02 left'):
            going[0].process.terminate()

    runner.report = watch
    stop = threading.Timer(60, lambda: os.kill(os.getpid(), signal.SIGINT))
    stop.start()
    runner.run([job])
    stop.cancel()
    assert seen[-1] == 'A1.1 Epoch(train)[2][50/100], 0:00:02 left'


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('Iter(train) [ 10/100]  lr: 1.25e-03  eta: 0:33:56  time: 22', 'Iter(train)[10/100], 0:33:56 left'),
        (
            'Epoch(train)   [1][  50/7330]  lr: 1e-3  eta: 1 day, 2:33:56  x',
            'Epoch(train)[1][50/7330], 1 day, 2:33:56 left',
        ),
        ('Epoch(test) [ 50/5000]    eta: 0:10:00  time: 0.1', 'Epoch(test)[50/5000], 0:10:00 left'),
        ('Epoch(val)  [3][ 50/5000]    eta: 0:10:00  time: 0.1', 'Epoch(val)[3][50/5000], 0:10:00 left'),
        ('nothing yet', 'starting'),
    ],
)
def test_lines_of_mmengine(tmp_path, line, said):
    step = make_job(tmp_path).train_step()
    step.log.write_text(f'an older line\nmmengine - INFO - {line}\n')
    assert local.progress(step) == said


def test_visible_gpus(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert local.visible_gpus(3) == ['0', '1', '2']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2, 5')
    assert local.visible_gpus(2) == ['2', '5']

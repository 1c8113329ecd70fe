"""Processes: resumed, reported and stopped. The commands here are small Python programs in place of trainings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from balanced_det.analysis.runs import Run, RunFailed, run_all, train_and_predict


def make_run(folder: Path, name='a') -> Run:
    return Run(name=name, config=folder / 'config.py', folder=folder / name, max_iters=30, options=('seed=1',))


def python(code: str) -> list[str]:
    return [sys.executable, '-c', code]


def test_commands_resume_and_write_elsewhere_first(tmp_path):
    run = make_run(tmp_path)
    train = run.train_command()
    assert Path(train[1]).name == 'train.py'
    assert '--resume' in train
    assert train[train.index('--cfg-options') + 1 :] == ['seed=1']
    predict = run.predict_command()
    assert Path(predict[1]).name == 'test.py'
    assert str(run.folder / 'iter_30.pth') in predict
    assert predict[-1] == f'test_evaluator.outfile_prefix={run.folder}/unfinished'


def test_trained_only_when_the_last_checkpoint_is_complete(tmp_path):
    run = make_run(tmp_path)
    run.folder.mkdir()
    run.checkpoint.touch()  # begun, not finished: mmengine names it afterwards
    assert not run.trained
    (run.folder / 'last_checkpoint').write_text(str(run.folder / 'iter_20.pth'))
    assert not run.trained
    (run.folder / 'last_checkpoint').write_text(str(run.checkpoint))
    assert run.trained


def test_iterations_from_the_log(tmp_path):
    run = make_run(tmp_path)
    assert run.iterations == 0
    run.folder.mkdir()
    (run.folder / 'train.log').write_text('Iter(train) [  10/30] lr\nsomething\nIter(train) [  20/30] lr\n')
    assert run.iterations == 20


def test_finished_runs_cost_nothing(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    run.folder.mkdir()
    (run.folder / 'last_checkpoint').write_text(str(run.checkpoint))
    run.predictions.touch()
    monkeypatch.setattr(subprocess, 'Popen', lambda *args, **kwargs: pytest.fail('a process was started'))
    train_and_predict([run], parallel=2, report=lambda going: None)


def test_predictions_of_a_shorter_training_do_not_stay(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    run.folder.mkdir()
    run.predictions.touch()

    def stop(*args, **kwargs):
        raise RunFailed('stopped in the training')

    monkeypatch.setattr('balanced_det.analysis.runs.run_all', stop)
    with pytest.raises(RunFailed):
        train_and_predict([run], parallel=2, report=lambda going: None)
    assert not run.predictions.exists()


def test_two_at_a_time_with_one_thread_each(tmp_path):
    runs = [make_run(tmp_path, name) for name in 'abc']
    code = 'import os, time; print(os.environ["OMP_NUM_THREADS"]); time.sleep(3)'
    seen = []
    run_all(runs, [python(code)] * 3, 'train.log', parallel=2, report=lambda going: seen.append(len(going)))
    assert max(seen) == 2
    assert [(run.folder / 'train.log').read_text() for run in runs] == ['1\n'] * 3


def test_failure_shows_the_end_of_the_log_and_stops_the_others(tmp_path):
    bad, other = make_run(tmp_path, 'bad'), make_run(tmp_path, 'other')
    commands = [python('import sys; sys.exit("no such thing")'), python('import time; time.sleep(600)')]
    started = time.monotonic()
    with pytest.raises(RunFailed, match=r'bad ended with exit code 1(.|\n)*train.log(.|\n)*no such thing'):
        run_all([bad, other], commands, 'train.log', parallel=2)
    assert time.monotonic() - started < 60


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel ends the processes of a killed parent on Linux alone')
def test_processes_die_with_a_killed_parent(tmp_path):
    code = (
        'import sys; from pathlib import Path; from balanced_det.analysis.runs import start; import time\n'
        f'p = start([sys.executable, "-c", "import time; time.sleep(600)"], Path({str(tmp_path / "log")!r}), '
        'one_thread=True)\n'
        f'Path({str(tmp_path / "pid")!r}).write_text(f"{{p.pid}}\\n"); time.sleep(600)'
    )
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    parent = subprocess.Popen(python(code), env=env)
    pid = tmp_path / 'pid'
    wait_until(lambda: pid.is_file() and pid.read_text().endswith('\n'), seconds=120)
    child = Path('/proc') / pid.read_text().strip()
    assert child.exists()
    parent.kill()
    parent.wait()
    # An ended process stays listed as a zombie until its new parent asks for it.
    wait_until(lambda: not child.exists() or ') Z ' in (child / 'stat').read_text(), seconds=10)


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.1)

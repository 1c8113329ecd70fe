"""From rows to jobs, with the repository's own configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from work_dir_cases import A2, add_checkpoint, add_test, add_training, row_config

from balanced_det import papers
from balanced_det.datasets.whole_files import write_text
from balanced_det.reproduction.folder import write_files
from balanced_det.reproduction.jobs import JobError
from balanced_det.reproduction.plan import Options, make_plan
from balanced_det.reproduction.results import ResultError
from balanced_det.reproduction.trial import Trial, TrialError


def plan(tmp_path, *keys, **options):
    return make_plan(papers.find(keys), Options(tmp_path, **options))


def test_rows_with_the_same_config_share_a_job(tmp_path):
    found = plan(tmp_path, 'A2.1', 'A3.1', 'A3.6', 'A2.4')
    assert [job.rows for job in found.jobs] == [('A2.1', 'A3.1', 'A3.6'), ('A2.4',)]
    assert found.jobs[0].folder == tmp_path / A2['A2.1']
    assert not list(tmp_path.iterdir())


def test_quoted_rows_are_no_jobs(tmp_path):
    found = plan(tmp_path, 'B2.1', 'B2.8')
    assert [row.key for row in found.quoted] == ['B2.1']
    assert [job.rows for job in found.jobs] == [('B2.8',)]


@pytest.mark.parametrize(
    ('options', 'gpus'),
    [
        (dict(launcher='pytorch', gpus=8), 2),  # batch 12, six images each
        (dict(launcher='pytorch', gpus=1), 1),
        (dict(launcher='pytorch', gpus=8, gpus_per_row=4), 4),
        (dict(launcher='none', gpus=8), 1),
        (dict(launcher='slurm', gpus=None), 2),
        (dict(launcher='pytorch', gpus=8, trial=Trial(batch_size=3)), 4),
    ],
)
def test_gpus_of_a_row_are_those_of_its_batch(tmp_path, options, gpus):
    assert [job.gpus for job in plan(tmp_path, 'A2.1', **options).jobs] == [gpus]


def test_cityscapes_needs_the_coco_training(tmp_path):
    with pytest.raises(JobError, match=r'A6.1 begins from the checkpoint of retinanet_r50_fpn_smooth-l1-1x_coco, which '
                       r'is not trained: first run python tools/reproduce.py A\d.\d+'):  # fmt: skip
        plan(tmp_path, 'A6.1')
    jobs = plan(tmp_path, 'A6.1', 'A4.2').jobs
    assert [job.name for job in jobs] == ['A4.2', 'A6.1']
    assert jobs[1].needs.name == 'A4.2'  # and not the first row of that config
    assert jobs[1].train_step().options[-1] == f'load_from={tmp_path}/retinanet_r50_fpn_smooth-l1-1x_coco/epoch_12.pth'


def test_cityscapes_after_the_coco_training(tmp_path):
    stem = 'retinanet_r50_fpn_smooth-l1-1x_coco'
    add_training(tmp_path / stem, row_config(stem))
    assert [job.name for job in plan(tmp_path, 'A6.1').jobs] == ['A6.1']


def test_a_multi_scale_test_needs_the_training_without_it(tmp_path):
    with pytest.raises(JobError, match=r'first run python tools/reproduce\.py B2\.23'):
        plan(tmp_path, 'B2.24')
    jobs = plan(tmp_path, 'B2.24', 'B2.23').jobs
    assert [job.name for job in jobs] == ['B2.23', 'B2.24']
    assert jobs[1].checkpoint == jobs[0].folder / 'epoch_12.pth'


def test_submission_files_for_rows_of_test_dev_alone(tmp_path):
    jobs = plan(tmp_path, 'B2.20', 'B3.4', 'A2.1', test_dev=True).jobs
    assert [(job.rows, job.test_dev) for job in jobs] == [(('B2.20', 'B3.4'), True), (('A2.1',), False)]
    assert jobs[0].test_dev_config.is_file()
    assert jobs[0].submission.parent == jobs[0].folder / 'test-dev'
    assert jobs[0].submission.name.startswith('detections_test-dev2017_')


def test_a_finished_row_has_nothing_left(tmp_path):
    cfg = row_config(A2['A2.1'])
    add_training(tmp_path / A2['A2.1'], cfg)
    (job,) = plan(tmp_path, 'A2.1').jobs
    assert job.state() == 'trained, not tested'
    add_test(tmp_path / A2['A2.1'], cfg)
    (job,) = plan(tmp_path, 'A2.1').jobs
    assert (job.state(), job.steps()) == ('done', [])


def results_of(tmp_path, changes):
    folder = tmp_path / A2['A2.1']
    cfg = row_config(A2['A2.1'])
    cfg.merge_from_dict(changes)
    add_training(folder, cfg, epochs=1)
    return sorted(folder.rglob('*'))


@pytest.mark.parametrize(
    ('section', 'values', 'message'),
    [
        (
            'model.bbox_head.loss_bbox',
            dict(beta=1.0),
            r'config: model.bbox_head.loss_bbox.beta is 1.0 there, 0.11\d* here',
        ),
        ('train_dataloader.dataset', dict(ann_file='x'), r'data set: .*/x.* there, .*/instances_train2017.json.* here'),
        ('train_cfg', dict(max_epochs=2), r'schedule: train_cfg.max_epochs is 2 there, 12 here'),
        ('train_dataloader', dict(batch_size=2), r'batch size: train_dataloader.batch_size is 2 there, 6 here'),
    ],
)
def test_results_of_something_else_are_refused_and_kept(tmp_path, section, values, message):
    before = results_of(tmp_path, {section: values})
    with pytest.raises(JobError, match=f'another {message}'):
        plan(tmp_path, 'A2.1')
    assert sorted((tmp_path / A2['A2.1']).rglob('*')) == before


def test_a_real_training_does_not_go_on_as_a_trial(tmp_path):
    results_of(tmp_path, {})
    with pytest.raises(JobError, match=r'another schedule: .*max_epochs is 12 there, 2 here'):
        plan(tmp_path, 'A2.1', trial=Trial(max_epochs=2))


def test_a_broken_config_in_the_folder_is_named(tmp_path):
    results_of(tmp_path, {})
    path = tmp_path / A2['A2.1'] / '20261121_155718' / 'vis_data' / 'config.py'
    path.write_text('model = dict(')
    with pytest.raises(ResultError, match=f'{path} is not a config'):
        plan(tmp_path, 'A2.1')


def test_a_checkpoint_of_nobody_knows_what(tmp_path):
    (tmp_path / A2['A2.1']).mkdir()
    add_checkpoint(tmp_path / A2['A2.1'], 'epoch_3.pth')
    with pytest.raises(JobError, match='holds a checkpoint and nothing that tells of which config'):
        plan(tmp_path, 'A2.1')


def test_a_trial_on_voc_data_writes_its_files_only_when_told(tmp_path, shared_data):
    trial = Trial(shared_data / 'bccd', max_iters=40)
    found = plan(tmp_path, 'A2.4', trial=trial)
    assert not list(tmp_path.iterdir())
    write_files(found.jobs[0])
    folder = tmp_path / A2['A2.4'] / 'trial'
    assert sorted(path.name for path in folder.iterdir()) == [f'{A2["A2.4"]}.py', 'test.json', 'train.json', 'val.json']
    assert len(json.loads((folder / 'train.json').read_text())['images']) == 205
    assert found.jobs[0].config == folder / f'{A2["A2.4"]}.py'
    assert found.jobs[0].checkpoint == tmp_path / A2['A2.4'] / 'iter_40.pth'


def test_a_trial_that_cannot_be_made_names_the_row(tmp_path):
    with pytest.raises(TrialError, match=r'A1.11 \(ssd300_coco\): --scale: the input of this detector is fixed'):
        plan(tmp_path, 'A1.11', trial=Trial(scale=(64, 64)))


def test_the_warm_up_of_a_trial_is_a_tenth_of_what_all_processes_train(tmp_path, shared_data):
    """Two epochs of 205 images, four batches of five at a time: 20 iterations, of which mmdet's 500 would be all."""
    trial = Trial(shared_data / 'bccd', max_epochs=2, batch_size=5)
    (job,) = plan(tmp_path, 'A2.1', launcher='pytorch', gpus=8, gpus_per_row=4, trial=trial).jobs
    assert job.cfg.param_scheduler[0]['end'] == 2


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The files and folders of COCO that the rows read, without content, in the current folder."""
    monkeypatch.chdir(tmp_path)
    names = ('annotations/instances_train2017.json', 'annotations/instances_val2017.json', 'train2017/', 'val2017/')
    for name in names:
        path = tmp_path / 'data' / 'coco' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith('/') else path.touch()
    return tmp_path / 'data' / 'coco'


def test_missing_data_are_named_before_anything_starts(tmp_path, data):
    found = plan(tmp_path / 'work', 'B2.20', 'A2.1')
    found.check_data()
    (data / 'train2017').rmdir()
    with pytest.raises(JobError, match=f'B2.20: no folder {data}/train2017.*link the data, see docs/data.md'):
        found.check_data()
    for job in found.jobs:  # what is trained needs the set of the test alone
        add_training(job.folder, job.cfg)
    found.check_data()
    with pytest.raises(JobError, match=f'B2.20: no annotation file {data}/annotations/image_info_test-dev2017.json'):
        plan(tmp_path / 'work', 'B2.20', test_dev=True).check_data()


@pytest.mark.parametrize('name', ['my runs', 'a,b', '100%'])
def test_a_place_that_mmengine_or_slurm_would_misread(tmp_path, name):
    with pytest.raises(JobError, match='in a path is not understood'):
        plan(tmp_path / name, 'A2.1')


@pytest.mark.slow
def test_every_own_row_makes_a_job(tmp_path):
    found = make_plan(papers.rows(), Options(tmp_path, 'slurm', None))
    assert sorted(key for job in found.jobs for key in job.rows) == sorted(
        row.key for row in papers.rows() if not row.quoted
    )
    assert len(found.jobs) == len({row.config for row in papers.rows() if not row.quoted})
    places = {job.config.stem: number for number, job in enumerate(found.jobs)}
    assert all(places[job.needs.config.stem] < places[job.config.stem] for job in found.jobs if job.needs)


def test_a_file_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'a' / 'file'
    write_text(path, 'old')
    monkeypatch.setattr(Path, 'write_bytes', lambda self, content: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        write_text(path, 'new')
    assert path.read_text() == 'old'

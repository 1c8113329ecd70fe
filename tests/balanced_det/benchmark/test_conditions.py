"""What is recorded beside the numbers: the commit of a checkout, versions of what takes part."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from balanced_det.benchmark import conditions as module
from balanced_det.benchmark.conditions import commit, conditions


@pytest.mark.skipif(not shutil.which('git'), reason='needs git')
def test_commit_of_a_checkout(tmp_path):
    def git(*arguments):
        command = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git('init')
    (tmp_path / 'file').write_text('1')
    git('add', 'file')
    git('commit', '-m', 'first')
    git('tag', '-a', 'v1', '-m', 'is not what is asked for')
    assert commit(tmp_path) == git('rev-parse', '--short', 'HEAD')
    (tmp_path / 'file').write_text('2')
    assert commit(tmp_path) == git('rev-parse', '--short', 'HEAD') + '+'
    (tmp_path / 'site-packages').mkdir()
    assert commit(tmp_path / 'site-packages') == ''


def test_versions_of_what_takes_part(monkeypatch):
    def version(name):
        if name == 'faster-coco-eval':
            raise PackageNotFoundError
        return '1.2'

    monkeypatch.setattr(module, 'version', version)
    monkeypatch.setattr(module, 'commit', lambda checkout: 'abc1234+')
    loss, evaluation = (conditions(part, torch.device('cpu'), '')['versions'] for part in ('loss', 'evaluation'))
    assert loss.endswith(' abc1234+')
    assert evaluation == f'{loss}, pycocotools 1.2'

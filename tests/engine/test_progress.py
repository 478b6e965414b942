"""Progress: a bar on a terminal, and lines where bars of several processes would draw over one another."""

import sys

import pytest

from spikedistill.engine import progress

ROW = {"train_loss": 0.5, "train_accuracy": 75.0, "seconds": 2.0}


@pytest.mark.parametrize("beside_others", [False, True])
def test_a_terminal_has_a_bar_unless_other_runs_write_to_it_too(monkeypatch, capsys, beside_others):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "parent_process", lambda: object() if beside_others else None)
    with progress.Reporter("mine-seed0").run(3, 1) as bar:
        bar.start_epoch(0, 0)
        bar.end_epoch(ROW)
    told = capsys.readouterr().err
    assert ("mine-seed0  epoch 1/3  loss 0.5000  train 75.00 %  2.0 s\n" in told) == beside_others
    assert ("left" in told) != beside_others

"""What one can see of a run while it trains."""

import csv
import sys
from types import ModuleType

import pytest

from pipelines.files.errors import UserError
from pipelines.profile import Params
from pipelines.training.progress import epoch_log
from tests.conftest import tiny_params

ROWS = [{"epoch": e, "train_loss": 1 / e, "val_acc": e / 10} for e in (1, 2, 3)]


def test_rows_are_on_disk_as_they_come_and_a_resumed_run_goes_on_with_the_file(workdir, capsys):
    params, path = Params(**tiny_params()), workdir / "checkpoints" / "0.csv"
    with epoch_log(params, "full seed 0", path, 3) as on_epoch:
        on_epoch(ROWS[0])
        assert len(list(csv.DictReader(path.read_text().splitlines()))) == 1
    with epoch_log(params, "full seed 0", path, 3) as on_epoch:
        on_epoch(ROWS[1])
        on_epoch(ROWS[2])
    assert [row["epoch"] for row in csv.DictReader(path.read_text().splitlines())] == ["1", "2", "3"]
    out = capsys.readouterr().out
    assert "full seed 0: epoch 1 of 3, loss 1.000" in out and "resumed after epoch 1" in out


def test_a_logger_gets_every_row_and_one_that_is_not_installed_is_named(workdir, monkeypatch):
    logged = []

    class Live:
        def __init__(self, folder, **_):
            self.folder = folder

        def log_metric(self, key, value):
            logged.append((key, value))

        def next_step(self):
            logged.append("step")

        def end(self):
            logged.append("end")

    module = ModuleType("dvclive")
    module.Live = Live
    monkeypatch.setitem(sys.modules, "dvclive", module)
    params = Params(**tiny_params(log=["dvclive"]))
    with epoch_log(params, "full seed 0", workdir / "0.csv", 3) as on_epoch:
        on_epoch(ROWS[0])
    assert logged == [*ROWS[0].items(), "step", "end"]
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(UserError, match="log: dvclive needs the package 'dvclive'"):
        epoch_log(params, "full seed 0", workdir / "0.csv", 3).__enter__()

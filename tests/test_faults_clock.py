"""A clock that jumps, and files from the past and the future: results do not depend on what time it is."""

import itertools
import json
import os
import time

import pytest
import yaml

from pipelines import launch, train
from pipelines.data import prepared
from pipelines.profile import Params
from pipelines.runs.record import read_record
from pipelines.training import loop
from tests.conftest import tiny_params
from tests.test_faults_files import stopped_after, without_times

CONTENT = tiny_params(seeds=[0], method={"head-only": {"family": "head_only"}})
YEARS = {"1971": 31_536_000, "2100": 4_102_444_800}


@pytest.fixture
def record(prepared, workdir):
    (workdir / "params.yaml").write_text(yaml.safe_dump(CONTENT))
    return Params(**CONTENT).run_dir("head-only", 0) / "record.json"


def read(path):
    return json.loads(path.read_text())


def test_seconds_are_none_of_the_clocks_that_jump(record, monkeypatch):
    assert train.main(["--method", "head-only"]) == 0
    steady = read(record)
    record.unlink()
    jumps = itertools.cycle([YEARS["2100"], YEARS["1971"], 0.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    start = time.monotonic()
    assert train.main(["--method", "head-only"]) == 0
    took = time.monotonic() - start
    jumped = read(record)
    assert without_times(jumped) == without_times(steady)
    assert 0 < jumped["timings"]["epoch_s"] <= jumped["timings"]["total_s"] <= took


@pytest.mark.parametrize("year", YEARS)
def test_a_finished_run_is_one_whatever_its_date(record, capsys, year):
    assert train.main(["--method", "head-only"]) == 0
    before = read(record)
    for path in [*record.parent.iterdir(), *Params(**CONTENT).data_dir.iterdir()]:
        os.utime(path, (YEARS[year],) * 2)
    capsys.readouterr()
    assert train.main(["--method", "head-only"]) == 0 and "complete, kept" in capsys.readouterr().out
    assert launch.main(["--dry-run"]) == 0
    assert capsys.readouterr().out == "0 runs to train, 1 complete\n"
    assert read(record) == before


@pytest.mark.parametrize("year", YEARS)
def test_a_checkpoint_is_continued_whatever_its_date(record, monkeypatch, year):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", stopped_after(1))
        assert train.main(["--method", "head-only"]) == 130
    os.utime("checkpoints/tiny/head-only/0.pt", (YEARS[year],) * 2)
    seen, evaluate = [], loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *a, **o: seen.append(1) or evaluate(*a, **o))
    assert train.main(["--method", "head-only"]) == 0
    assert len(seen) == CONTENT["train"]["epochs"]  # all epochs but the first one, and the test
    assert read_record(record.parent).status == "complete"


@pytest.mark.parametrize("year", YEARS)
def test_data_that_changed_are_noticed_whatever_their_date(record, year):
    """Even where the changed file is older than what was checked before."""
    params = Params(**CONTENT)
    prepared.verify(params)
    images = params.data_dir / "images.npy"
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    os.utime(images, (YEARS[year],) * 2)
    with pytest.raises(ValueError, match="images.npy"):
        prepared.verify(params)

"""SIGKILL at every kind of point of a run, then a second run: it must end as the unbroken one, bit for bit.

A *point* is a step of the optimiser, a write of half of a file, a flush to disk, or a rename, counted from the start
of the run. Each run is a fork of one process that has imported everything, so a kill costs no import.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import tiny_params

ROOT = Path(__file__).parents[1]

DRIVER = """
import builtins, json, os, signal, sys
import numpy, pandas, torch
from pathlib import Path
from pipelines.runs.record import read_record
from pipelines import summarise
from pipelines.evidence import stats
from pipelines.files import records
from pipelines.training import loop, probe, runner
from pipelines.profile import load
import matplotlib.pyplot
import report.__main__, report.pages

torch.set_num_threads(1)
stage, kill_at = sys.argv[1], [int(k) for k in sys.argv[2].split(",")]
params = load("params.yaml")


def run():
    if stage == "train":
        return runner.run_method(params, "colora", [0], "cpu")
    if stage == "summarise":
        return summarise.main([])
    return report.__main__.main([])


def counted(last):
    # Count the points of this process, and die at number `last`; returns a function that tells the count.
    count = 0

    def point():
        nonlocal count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            point()
            return original(*args, **kwargs)

        setattr(owner, name, wrapped)

    before(torch.optim.AdamW, "step")
    before(os, "fsync")
    before(os, "replace")
    original = records.write_atomically

    def halved(path, write):
        def half(file):
            # A write that stops in the middle: all bytes go to memory first, then half of them to the file.
            import io
            buffer = io.BytesIO()
            write(buffer)
            content = buffer.getvalue()
            file.write(content[: len(content) // 2])
            file.flush()
            point()
            file.write(content[len(content) // 2 :])
        original(path, half)

    for module in (records, runner, summarise):
        if hasattr(module, "write_atomically"):
            module.write_atomically = halved
    write_text = Path.write_text

    def text(self, content, *args, **kwargs):
        write_text(self, content[: len(content) // 2], *args, **kwargs)
        point()
        return write_text(self, content, *args, **kwargs)

    Path.write_text = text
    return lambda: count


for last in kill_at:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        done = counted(last)
        code = 1
        try:
            code = run()
            Path("points").open("w").write(str(done()))
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print("status", last, os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status))
    # What a reader finds now is whole or absent.
    runs = Path("results/tiny/runs")
    for path in runs.rglob("*.npz"):
        if not path.name.startswith("."):
            with numpy.load(path, allow_pickle=False) as archive:
                [archive[name] for name in archive.files]
    for folder in runs.glob("*/*"):
        read_record(folder)
    for path in Path("results/tiny").glob("*.csv"):
        pandas.read_csv(path)
    if stage == "train" and "--again" in sys.argv:
        child = os.fork()
        if child == 0:
            os._exit(run())
        print("resumed", last, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        folder = params.run_dir("colora", 0)
        left = sorted(p.name for p in folder.iterdir())
        record = json.loads((folder / "record.json").read_text())
        for key in ("date", "command"):
            record["environment"].pop(key)
        record.pop("timings")
        print("run", json.dumps([left, record, *((folder / n).read_bytes().hex()
              for n in ("predictions.npz", "corruptions.npz", "gradcam.npz"))]))
        (folder / "record.json").unlink()
        [p.unlink() for p in folder.iterdir()]
"""


def drive(folder, *arguments) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, arguments)], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split(" ", 2) for line in done.stdout.splitlines()]


@pytest.fixture
def tiny(prepared, workdir):
    content = tiny_params(
        seeds=[0],
        probe={"images": 8},
        method={"colora": {"family": "colora", "merge_reset": True}, "full": {"family": "full"}},
    )
    content["train"] |= {"augment": "standard", "schedule": "one-cycle", "batch_size": 32}
    (workdir / "params.yaml").write_text(yaml.safe_dump(content))
    return workdir


def test_a_run_killed_anywhere_ends_as_the_unbroken_one(tiny):
    lines = drive(tiny, "train", "0", "--again")
    points = int((tiny / "points").read_text())
    unbroken = [line[1] for line in lines if line[0] == "run"]
    assert points >= 24  # steps, and three points for each of the files
    lines = drive(tiny, "train", ",".join(map(str, range(1, points + 1))), "--again")
    assert [line[2] for line in lines if line[0] == "status"] == [str(int(signal.SIGKILL))] * points
    assert [line[2] for line in lines if line[0] == "resumed"] == ["0"] * points
    ends = [" ".join(line[1:]) for line in lines if line[0] == "run"]
    whole = " ".join(next(line for line in drive(tiny, "train", "0", "--again") if line[0] == "run")[1:])
    assert len(ends) == points and unbroken
    for point, end in enumerate(ends, start=1):
        assert end == whole, f"killed at point {point} of {points}"
    assert json.loads(whole)[0] == ["corruptions.npz", "curves.csv", "gradcam.npz", "predictions.npz", "record.json"]


@pytest.mark.parametrize("stage", ["summarise", "report"])
def test_summary_and_report_killed_anywhere_are_made_anew(tiny, stage):
    from pipelines import summarise
    from pipelines.profile import load
    from pipelines.training import runner

    params = load("params.yaml")
    for method in params.method:
        assert runner.run_method(params, method, [0], "cpu") == 0
    if stage == "report":
        assert summarise.main([]) == 0
    out = Path("report/tiny") if stage == "report" else Path("results/tiny")

    def files():
        return {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    drive(tiny, stage, "0")
    whole, points = files(), int((tiny / "points").read_text())
    if stage == "report":
        shutil.rmtree(out)
    kills = sorted({int(k) for k in np.linspace(1, points, 6)})
    statuses = [line[2] for line in drive(tiny, stage, ",".join(map(str, kills))) if line[0] == "status"]
    assert statuses == [str(int(signal.SIGKILL))] * len(kills)
    assert drive(tiny, stage, "0")[-1][2] == "0"
    left = {p: content for p, content in files().items() if not p.name.startswith(".")}
    assert left == {p: content for p, content in whole.items() if not p.name.startswith(".")}

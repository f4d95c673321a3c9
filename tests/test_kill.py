"""SIGKILL at every kind of point of a run, then a second run: it must end as the unbroken one, bit for bit.

A *point* is a step of the optimiser, a write of half of a file, a flush to disk, or a rename, counted from the start
of the run. Each run is a fork of one process that has imported everything, so a kill costs no import.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import tiny_params

ROOT = Path(__file__).parents[1]

DRIVER = """
import json, os, shutil, signal, sys
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
from report import drawing

torch.set_num_threads(1)
stage, most = sys.argv[1], int(sys.argv[2])  # kills at most
params = load("params.yaml")


def sketch(figure, stem):
    # In place of a figure's three drawings: it is where they lie that a kill may leave wrong.
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_suffix(f".{name}") for name in ("svg", "pdf", "png")]
    for path in files:
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt" viewBox="0 0 9 9"/>')
    matplotlib.pyplot.close(figure)
    return files


drawing.save = sketch


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


def forked(last):
    # Run in a fork that dies at point `last` (0: never), and check that what a reader finds is whole or absent.
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
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    runs = Path("results/tiny/runs")
    for path in runs.rglob("*.npz"):
        if not path.name.startswith("."):
            with numpy.load(path, allow_pickle=False) as archive:
                [archive[name] for name in archive.files]
    for folder in runs.glob("*/*"):
        read_record(folder)
    for path in Path("results/tiny").glob("*.csv"):
        pandas.read_csv(path)
    return status


def made():
    # What the stage leaves, without dates and timings.
    if stage != "train":
        out = Path("report/tiny" if stage == "report" else "results/tiny")
        files = sorted(p for p in out.rglob("*") if p.is_file() and not p.name.startswith("."))
        return {str(p): p.read_bytes().hex() for p in files}
    folder = params.run_dir("colora", 0)
    record = json.loads((folder / "record.json").read_text())
    for key in ("date", "command"):
        record["environment"].pop(key)
    record.pop("timings")
    arrays = ("predictions.npz", "corruptions.npz", "gradcam.npz")
    return [sorted(p.name for p in folder.iterdir()), record, *((folder / n).read_bytes().hex() for n in arrays)]


def cleared():
    # A summary is written over the old one; a run and a report start from nothing.
    for place in {"train": ("results/tiny/runs", "models", "checkpoints"), "report": ("report/tiny",)}.get(stage, ()):
        shutil.rmtree(place, ignore_errors=True)


run()  # here, so that no fork has to load and compile again what torch and Matplotlib leave to the first use
cleared()
statuses = [forked(0)]
whole, points = made(), int(Path("points").read_text())
kills = sorted({int(k) for k in numpy.linspace(1, points, min(most, points))})
ends = []
cleared()
for last in kills:
    statuses.append(forked(last))
    if stage == "train" or last == kills[-1]:
        ends.append((last, forked(0), made() == whole))
        cleared()
print("found", json.dumps({"points": points, "kills": kills, "statuses": statuses, "ends": ends,
      "left": whole[0] if stage == "train" else list(whole)}))
"""


def drive(folder, stage: str, most: int) -> dict:
    """Run a stage unbroken, then killed at `most` points spread evenly, each time (a summary: at the end) made anew."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, stage, str(most)], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1].removeprefix("found "))
    assert found["statuses"] == [0] + [-signal.SIGKILL] * len(found["kills"])
    return found


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
    found = drive(tiny, "train", 1000)
    assert found["points"] >= 24  # steps, and three points for each of the files
    assert found["ends"] == [[point, 0, True] for point in range(1, found["points"] + 1)]
    assert found["left"] == ["corruptions.npz", "curves.csv", "gradcam.npz", "predictions.npz", "record.json"]


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
    most = {"summarise": 3, "report": 5}[stage]  # the second has many more points, in figures, tables and pages
    found = drive(tiny, stage, most)
    assert len(found["kills"]) == most and found["ends"] == [[found["points"], 0, True]] and found["left"]

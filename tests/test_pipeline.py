"""The pipeline as DVC sees it: a copy of the project, run once with three small methods, then asked what they rerun."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.runs.code import ROOT
from tests.conftest import tiny_params
from tests.test_architecture import house

ALWAYS = {"prepare"}  # looks at the content of what it reads each time
PRETRAINED = {"head-only", "colora-blocks2-5"}
CODE = ("baselines", "colora", "pipelines", "report", "dvc.yaml", ".dvcignore")


@pytest.mark.parametrize("stage", ["prepare", "pretrain", "code", "summarise", "explain", "report"])
def test_a_stage_depends_on_the_rooms_that_its_command_reads(stage):
    """Up to what its numbers or pages are made with; the cost stage recognises what it has by its fingerprint."""
    modules = {module.name: module for module in house()}
    waiting, seen = ["report.__main__" if stage == "report" else f"pipelines.{stage}"], set()
    while waiting:
        if (name := waiting.pop()) in modules and name not in seen:
            seen.add(name)
            waiting += [imported for imported, *_ in modules[name].imports]
    rooms = {room for room in ("data", "evidence", "files", "runs") if any(f"pipelines.{room}." in n for n in seen)}
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    assert {f"pipelines/{room}" for room in rooms} <= set(deps)


def dvc(folder, *arguments):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # whose `python` the stages run
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path, "COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(folder) -> set[str]:
    """Stages that DVC itself reports as changed."""
    return set(json.loads(dvc(folder, "status", "--json")))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "quick", "oct1k*"))
        else:
            shutil.copy(ROOT / name, folder / name)
    methods = {name: tiny_params()["method"][name] for name in sorted(PRETRAINED)}
    methods["vim"] = {"family": "vim", "patch": 8, "width": 16, "depth": 1, "train": {"lr": 0.001}}
    tuning = {"lrs": [1e-3, 3e-3], "epochs": 1, "widen": 0}
    content = tiny_params(method=methods, tune=tuning, pretrain=None, allow_missing=False, report={"paper": True})
    content["train"]["epochs"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc(folder, "init", "-q")
    (folder / ".dvc" / "plots").mkdir(exist_ok=True)
    for template in (ROOT / ".dvc" / "plots").glob("*.json"):
        shutil.copy(template, folder / ".dvc" / "plots")
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    dvc(folder, "repro")
    return folder


@pytest.fixture
def edit(ran):
    """Edit a file of the project for one test."""
    kept = {}

    def change(name, old, new):
        path = ran / name
        kept[path] = path.read_text()
        assert old in kept[path]
        path.write_text(kept[path].replace(old, new))

    for name in ("dvc.lock", "data/code.json"):  # written anew by `dvc repro code`
        kept[ran / name] = (ran / name).read_text()
    yield change
    for path, text in kept.items():
        path.write_text(text)


def test_a_run_leaves_results_and_report_and_nothing_to_do(ran):
    summary = json.loads((ran / "results/tiny/summary.json").read_text())
    assert list(summary) == ["colora-blocks2-5", "head-only", "vim"]
    assert all(method["seeds"] == 2 and 0 <= method["acc_mean"] <= 1 for method in summary.values())
    assert (ran / "report/tiny/README.md").is_file()
    assert changed(ran) == ALWAYS
    again = dvc(ran, "repro")
    assert "data/tiny: kept" in again and again.count("Running stage") == 1


def test_the_trials_of_tuned_methods_are_recorded_and_a_stated_rate_is_said_to_be(ran):
    trials = json.loads((ran / "results/tiny/tune/head-only.json").read_text())
    assert [trial["lr"] for trial in trials["trials"]] == [1e-3, 3e-3]
    assert json.loads((ran / "results/tiny/tune/vim.json").read_text())["trials"] == []
    record = json.loads((ran / "results/tiny/runs/head-only/1/record.json").read_text())
    assert record["settings"]["train"]["lr"] == trials["chosen"]


def test_metrics_and_plots_have_every_method(ran):
    shown = json.loads(dvc(ran, "metrics", "show", "--json"))
    values = shown[""]["data"]["results/tiny/metrics.json"]["data"]
    assert {f"acc.{method}" for method in PRETRAINED} <= set(values) and len(values) <= 16
    dvc(ran, "plots", "show", "--out", "plots")
    page = (ran / "plots" / "index.html").read_text()
    assert all(method in page for method in (*PRETRAINED, "vim"))


def test_one_methods_setting_reruns_that_method_alone(ran, edit):
    edit("params.yaml", "    family: head_only", "    family: head_only\n    train: {lr: 0.01}")
    assert changed(ran) == {*ALWAYS, "tune", "train@head-only", "summarise", "explain"}
    dry = dvc(ran, "repro", "--dry")
    assert "Running stage 'train@head-only'" in dry and "Running stage 'train@colora-blocks2-5'" not in dry


def test_the_recipe_reruns_every_method_but_not_the_data(ran, edit):
    edit("params.yaml", "batch_size: 16", "batch_size: 8")
    stages = changed(ran)
    assert {f"train@{method}" for method in PRETRAINED} <= stages and not {"pretrain", "cost"} & stages


def test_a_weights_file_of_other_content_reruns_what_may_start_from_it(ran, edit):
    """As data/PROFILE/weights.json says it, which tests/test_prepare.py tries."""
    edit("data/tiny/weights.json", "{}", '{"mine.safetensors": "another digest"}')
    assert {"tune", *(f"train@{method}" for method in (*PRETRAINED, "vim"))} <= changed(ran)


@pytest.mark.parametrize(
    "name, old, new, methods",
    [
        ("baselines/backbones/nets.py", "(16, 32, 64, 96, 128)", "(16, 32, 64, 96, 160)", PRETRAINED),
        ("baselines/layers/scan.py", "SEGMENT = 16", "SEGMENT = 8", {"vim"}),
    ],
    ids=["backbones", "layer"],
)
def test_code_reruns_the_methods_whose_numbers_it_decides(ran, edit, name, old, new, methods):
    """As data/code.json says it, which tests/test_records.py tries."""
    edit(name, old, new)
    assert "code" in changed(ran)
    dvc(ran, "repro", "code")
    stages = changed(ran)
    assert {stage for stage in stages if "@" in stage} == {f"train@{method}" for method in methods}
    assert "tune" in stages


def test_runs_made_elsewhere_are_recorded_without_training(ran):
    """Throw DVC's record of a stage away, as for runs copied from another machine."""
    lock = yaml.safe_load((ran / "dvc.lock").read_text())
    del lock["stages"]["train@head-only"]
    (ran / "dvc.lock").write_text(yaml.safe_dump(lock))
    out = dvc(ran, "repro", "train@head-only")
    assert out.count("complete, kept") == 2
    assert changed(ran) == ALWAYS


def test_experiments_that_differ_in_one_parameter_fit_a_screen(ran):
    """`make compare`, whose options stand in the Makefile: at most 12 columns, at most 120 characters a line."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (ran / ".gitignore").write_text("__pycache__/\n/data/\n/weights/\n/models/\n/checkpoints/\n")
    for words in (["add", "-A"], [*who, "commit", "-qm", "run"]):
        subprocess.run(["git", *words], cwd=ran, check=True)
    dvc(ran, "exp", "run", "-n", "faster", "-S", "method.vim.train.lr=0.01", "summarise")
    hidden = re.search(r"^HIDDEN = (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].replace("$$", "$")
    command = re.search(r"^\t.*dvc (exp show .*) --drop", (ROOT / "Makefile").read_text(), re.M)[1].split()
    names, *rows = csv.reader(io.StringIO(dvc(ran, *command, "--drop", hidden, "--csv")))
    assert "method.vim.train.lr" in names and len(names) <= 12
    assert {"0.001", "0.01"} == {row[names.index("method.vim.train.lr")] for row in rows}
    lines = dvc(ran, *command, "--drop", hidden).splitlines()
    assert 0 < max(map(len, lines)) <= 120 and "faster" in "".join(lines) and "…" not in "".join(lines)
    diff = json.loads(dvc(ran, "metrics", "diff", "--json", "faster", "HEAD"))
    assert set(diff) <= {"results/tiny/metrics.json"}

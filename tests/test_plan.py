"""Plans from measured step times, against numbers worked out by hand and schedules found by trying all."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines import plan
from pipelines.costs import forecast
from pipelines.costs.forecast import Work
from pipelines.evidence import schemas
from pipelines.files import records
from pipelines.profile import compose
from tests.conftest import tiny_params

ROOT = Path(__file__).parents[1]
GPU = {"gpu": "NVIDIA X", "cpu": "EPYC", "threads": 8, "torch": "2.13", "date": "2027-01-01"}
METHODS = {"full": {"family": "full"}, "head-only": {"family": "head_only"}}
COUNTS = {"train": {"a": 90, "b": 6}, "train@0.25": {"a": 20, "b": 5}, "val": {"a": 32}, "test": {"b": 32}}
CARD = {"seeds": {"all": {"counts": COUNTS}}}
TUNE = {"lrs": [0.1, 0.2, 0.3], "epochs": 1, "seeds": [1]}

hours = st.integers(1, 20)
some_works = st.lists(st.tuples(hours | st.just(0), st.lists(hours, min_size=1, max_size=4)), min_size=1, max_size=5)


def works_of(drawn):
    return [Work(str(place), float(tuning), tuple(map(float, runs))) for place, (tuning, runs) in enumerate(drawn)]


def row(method, minutes, **changes):
    """A row of cost.csv: a step takes so many minutes, evaluating eight images a quarter of one."""
    point = {"method": method, "role": "method", "backbone": "smallcnn", "image_size": 32, "batch_size": 16}
    times = {"step_ms": 60000 * minutes, "inference_batch": 8, "inference_batch_ms": 15000}
    return {**point, "precision": "float32", "compile": False, **times, **changes}


@pytest.fixture
def planned(workdir, capsys):
    """Write a profile with its results, plan it, and return (exit status, what was printed, {file: rows})."""

    def run(rows, *options, environment=GPU, card=CARD, left_out=None, **changes):
        (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params(**{"method": METHODS, **changes})))
        results = workdir / "results" / "tiny"
        if rows is not None:
            records.write_csv(results / "cost.csv", schemas.frame("cost", rows))
        records.write_json(results / "cost.json", {"environment": environment, "left_out": left_out or {}})
        if card:
            records.write_json(results / "data" / "card.json", card)
        status = plan.main([*options, "--out", "plan.csv"])
        done = capsys.readouterr()
        tables = {path.name: list(csv.DictReader(path.read_text().splitlines())) for path in workdir.glob("plan*.csv")}
        return status, done.out + done.err, tables

    return run


def column(tables, name, file="plan.csv"):
    return [float(line[name]) for line in tables[file]]


# By hand


def test_two_tuned_methods(planned):
    """Six steps an epoch of 1 and 1/2 minutes, a minute of validation and of test: runs of 15 and 9 minutes, tuning
    of 21 and 12. On two GPUs the full method's tuning ends as the other's first run does, after 21; then come both runs
    of 15 side by side, and one of 9 is left. On three nothing waits for the longest chain, 21 + 15.
    """
    status, text, tables = planned([row("full", 1), row("head-only", 0.5)], "--gpus", "1", "2", "3", "4", tune=TUNE)
    assert status == 0, text
    assert column(tables, "epoch_min") == [7, 4]
    assert column(tables, "run_h") == pytest.approx([15 / 60, 9 / 60])
    assert column(tables, "tuning_h") == pytest.approx([21 / 60, 12 / 60])
    assert column(tables, "total_h") == pytest.approx([51 / 60, 30 / 60])
    assert column(tables, "hours", "plan_gpus.csv") == pytest.approx([81 / 60, 45 / 60, 36 / 60, 36 / 60])
    assert column(tables, "work_h", "plan_gpus.csv") == pytest.approx([81 / 60, 40.5 / 60, 27 / 60, 20.25 / 60])
    assert column(tables, "chain_h", "plan_gpus.csv") == pytest.approx([36 / 60] * 4)
    longest = "tuning and one run of full"
    assert [line["bounded_by"] for line in tables["plan_gpus.csv"]] == ["all work", "all work", longest, longest]
    assert "More than 3 GPUs do not help" in text and "measured on NVIDIA X" in text and "1.350 GPU hours" in text


def test_a_method_may_leave_out_the_seed_that_it_is_tuned_on(planned):
    method = {"full": {"family": "full", "seeds": [1]}}
    status, text, tables = planned([row("full", 1)], "--gpus", "1", tune=TUNE, method=method)
    assert status == 0, text
    assert column(tables, "tuning_h") == pytest.approx([21 / 60]) and column(tables, "seeds") == [1]


def test_a_race_over_more_seeds_is_planned_with_two_rates_on_each(planned):
    method, tune = {"full": {"family": "full"}}, {**TUNE, "seeds": [1, 0]}
    status, text, tables = planned([row("full", 1)], "--gpus", "1", method=method, tune=tune)
    assert status == 0, text
    assert column(tables, "tuning_h") == pytest.approx([(3 + 2) * 7 / 60])


def test_an_methods_own_recipe(planned):
    """A quarter of the images (25) in batches of 5, three epochs, a stated rate and so no tuning, entropies at the
    end: 3 (5 steps + 1) + 1 + 25/32 minutes; rows of other batches, networks, precisions and peers are not taken.
    """
    train = {"share": 0.25, "batch_size": 5, "epochs": 3, "lr": 0.1, "save_entropies": True}
    others = [
        {"batch_size": 16},
        {"backbone": "vgg16"},
        {"precision": "bfloat16"},
        {"role": "peer"},
        {"image_size": 64},
        {"compile": True},
    ]
    wrong = [row("own", 99, **{"batch_size": 5, **change}) for change in others]
    rows = [*wrong, row("own", 1, batch_size=5), *wrong]
    method = {"own": {"family": "full", "train": train}}
    data = {**tiny_params()["data"], "shares": [0.25]}
    status, text, tables = planned(rows, method=method, tune=TUNE, data=data)
    assert status == 0, text
    assert column(tables, "run_h") == pytest.approx([(3 * 6 + 1 + 25 / 32) / 60], rel=1e-5)
    assert column(tables, "tuning_h") == [0] and column(tables, "seeds") == [2]
    assert tables["plan_gpus.csv"][2]["bounded_by"] == "one run of own"


def test_the_profile_may_state_the_number_of_images(planned):
    rows = [row("full", 1), row("head-only", 0.5)]
    _, text, tables = planned(rows, card=None, cost={"images": 161})
    assert column(tables, "epoch_min") == [11, 5.5]
    assert "Not counted: validation and test passes," in text


def test_what_was_not_measured_is_not_counted(planned):
    rows = [row("full", 1, inference_batch_ms="", inference_batch=""), row("head-only", 0.5)]
    _, text, tables = planned(rows)
    assert column(tables, "epoch_min") == [6, 4] and "Not counted: validation and test passes of full," in text


@pytest.mark.parametrize("environment", [{**GPU, "gpu": None}, None])
def test_without_a_gpu_it_is_a_device(planned, environment):
    _, text, _ = planned([row("full", 1), row("head-only", 1)], environment=environment)
    assert "GPUs" not in text and "device hours" in text
    assert (
        "EPYC (8 threads, no GPU)" if environment else "a machine that results/tiny/cost.json does not name"
    ) in text


# Schedules


def test_grahams_worst_case_of_two():
    """3, 3, 2, 2, 2 on two: 7 hours where 6 would do, the ratio 4/3 - 1/6."""
    assert forecast.makespan([Work("a", 0.0, (3.0, 2.0, 2.0)), Work("b", 0.0, (2.0, 3.0))], 2) == 7


def test_what_ends_last_goes_first():
    """The method with the long run is tuned before the others, and the long run precedes its siblings."""
    methods = [Work("a", 1.0, (1.0,)), Work("b", 1.0, (1.0,)), Work("c", 1.0, (10.0,))]
    assert forecast.makespan(methods, 2) == 11  # 12 with c's tuning after the others'
    assert forecast.makespan([Work("d", 1.0, (1.0, 1.0, 5.0))], 2) == 6  # 7 with the short runs first


@given(st.lists(hours, min_size=1, max_size=7), st.integers(1, 3))
def test_without_tuning_it_is_near_the_best(runs, gpus):
    best = min(
        max(sum(run for run, own in zip(runs, places) if own == gpu) for gpu in range(gpus))
        for places in itertools.product(range(gpus), repeat=len(runs))
    )
    found = forecast.makespan(works_of([(0, [run]) for run in runs]), gpus)
    assert best <= found <= (4 / 3 - 1 / (3 * gpus)) * best + 1e-9


@given(some_works, st.integers(1, 30))
def test_hours_lie_between_their_bounds(drawn, gpus):
    """Never below either bound, and at most work / n + (1 - 1/n) chain (Graham 1969, with precedence)."""
    works = works_of(drawn)
    total = sum(tuning + sum(runs) for tuning, runs in drawn)
    chain = max(tuning + max(runs) for tuning, runs in drawn)
    found = forecast.makespan(works, gpus)
    assert max(total / gpus, chain) - 1e-9 <= found <= total / gpus + (1 - 1 / gpus) * chain + 1e-9
    assert forecast.makespan(works, 1) == total
    line = forecast.planned(works, gpus)
    assert line["work_h"] == pytest.approx(total / gpus) and line["chain_h"] == chain
    assert (line["bounded_by"] == "all work") == (total / gpus >= chain)


@given(some_works)
def test_the_most_gpus_that_help(drawn):
    works, most = works_of(drawn), forecast.most_gpus(works_of(drawn))
    chain = max(tuning + max(runs) for tuning, runs in drawn)
    assert [forecast.makespan(works, gpus) == chain for gpus in range(1, most + 1)] == [False] * (most - 1) + [True]


# Errors


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (None, {}, ["results/tiny/cost.csv: no such file", "python -m pipelines.cost"]),
        ([row("full", 1)], {}, ["cost.csv: no step times of 1 of 2 methods", "head-only: expected", "no row"]),
        ([row("full", 1), row("head-only", 1, batch_size=8)], {},
         ["smallcnn at 32 px, batch 16, float32; found smallcnn at 32 px, batch 8, float32", "cost.batch_sizes"]),
        ([row("full", 1), row("head-only", "x", step_ms="fast")], {}, ["step_ms should hold numbers", "'fast'"]),
        ([row("full", 1), row("head-only", 0)], {}, ["method head-only has step_ms 0", "above 0"]),
        ([row("full", 1), row("head-only", 1, step_ms=None)], {}, ["method head-only has step_ms nan"]),
        ([row("full", 1, inference_batch=0), row("head-only", 1)], {}, ["method full has", "inference_batch 0"]),
        ([row("full", 1), row("head-only", 1)], {"card": None}, ["data/card.json", "no such file", "cost.images"]),
        ([row("full", 1), row("head-only", 1)], {"card": {"seeds": {"0": {}}}}, ["card.json", "seed 0", "prepare"]),
    ],
)  # fmt: skip
def test_errors_name_file_and_next_step(planned, rows, options, words):
    status, text, tables = planned(rows, **options)
    assert status == 1 and not tables
    assert all(word in text for word in words) and text.startswith("error: results/tiny/"), text


def test_an_method_that_could_not_be_measured_is_named_with_the_reason(planned):
    left_out = {"32px-b16": {"head-only": "out of memory on cuda:0"}, "growth": {"head-only": "not asked for"}}
    status, text, _ = planned([row("full", 1)], left_out=left_out)
    assert status == 1 and text.strip().endswith("no row; left out at 32px-b16: out of memory on cuda:0")


def test_a_file_that_is_no_csv(planned, workdir):
    path = workdir / "results" / "tiny" / "cost.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe\x00")
    status, text, _ = planned(None)
    assert status == 1 and text.startswith("error: results/tiny/cost.csv: not readable as CSV")


@pytest.mark.parametrize("options", [["--gpus", "0"], ["--gpus", "many"]])
def test_options_that_mean_nothing(options, capsys):
    with pytest.raises(SystemExit) as stop:
        plan.main(options)
    assert stop.value.code == 2 and options[0] in capsys.readouterr().err


# The committed results, where their costs have been measured


@pytest.mark.skipif(not (ROOT / "results" / "oct1k" / "cost.csv").is_file(), reason="oct1k's costs are not measured")
def test_oct1k_is_planned_from_its_committed_times_without_torch_or_dvc():
    code = "import sys; from pipelines import plan; status = plan.main(['--profile', 'oct1k'])\n"
    code += "sys.exit(status or bool({'torch', 'dvc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no GPU" in done.stdout and "device hours in all" in done.stdout
    params = compose("oct1k", ROOT / "conf")
    left = len(params.method) - len(params.cost.methods)
    assert f"{left} methods that cost.methods leaves out" in done.stdout and "ssf" not in done.stdout

"""The claims ledger: every verdict forced each way on made-up results, its scope, the ledger's errors."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipelines.evidence import stability
from pipelines.evidence.summary import summarise
from report import claims, tables
from report.claim_tests import Comparable, Cost, Gain, Parameters, Stability, seeds_to_part
from report.results import ReportError, load
from tests import fake_results as fake

METHODS = ["full", "head-only", "colora-blocks2-5", "vit-lora", "vim", "medkan"]
COLORA = "colora-blocks2-5"
OTHERS = {"ViT": "vit-lora", "state space": "vim", "KAN": "medkan"}


def write_results(where, monkeypatch, methods=METHODS, source="phantom", skip=(), seeds=(0, 1, 2)):
    monkeypatch.chdir(where)
    params = fake.params(methods, seeds=seeds, allow_missing=bool(skip))
    fake.write_profile(params, skip=skip, n_test=80)
    summarise(params)
    (params.results_dir / "data").mkdir()
    card = {"settings": {"source": source}, "count": 1000}
    (params.results_dir / "data" / "card.json").write_text(json.dumps(card))
    return where / params.results_dir


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield write_results(tmp_path_factory.mktemp("claims"), monkeypatch)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))


@pytest.fixture(scope="module")
def results(written):
    """Read once: no test changes its frames."""
    return load(written)


def compared(results, against, **values):
    """Results in which the CoLoRA method's comparison with `against` has these values."""
    frame = results.comparisons.astype({"equivalent": object})
    rows = (frame.method == COLORA) & (frame.against == against)
    assert rows.sum() == 1
    for name, value in values.items():
        frame.loc[rows, name] = value
    return replace(results, comparisons=frame)


def difference(value, p=0.01, swap=0.01, half=0.005, equivalent=False, seeds=3):
    return {
        "difference": value, "lo": value - half, "hi": value + half, "p_holm": p, "p_swap_holm": swap,
        "equivalent": equivalent, "seeds": seeds, "margin": 0.01, "auc_difference": value, "auc_lo": value - half,
        "auc_hi": value + half, "auc_p_holm": p,
    }  # fmt: skip


# Gains


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
@pytest.mark.parametrize(
    ("values", "size", "verdict"),
    [
        (difference(0.02), None, "supported"),
        (difference(-0.02), None, "contradicted"),
        (difference(0.02, p=0.05), None, "undecided"),  # 0.05 itself is not below 0.05
        (difference(0.02, p=0.0499), None, "supported"),
        (difference(-0.02, p=0.06), None, "undecided"),
        (difference(0.02, seeds=1), None, "undecided"),
        (difference(0.02), 0.01, "supported"),
        (difference(0.0078125, half=0.00390625), 0.01171875, "supported"),  # the interval's end is the claimed size
        (difference(0.0078125, half=0.00390625), 0.012, "contradicted"),  # better, but not by so much
        (difference(0.001, p=0.5), 0.01, "contradicted"),  # not shown to be better, and never by so much
        (difference(0.001, p=0.5, half=0.02), 0.01, "undecided"),
        (difference(-0.02, half=0.05), 0.01, "contradicted"),  # shown lower, whatever the interval reaches
    ],
)
def test_a_gain_is_judged(results, metric, values, size, verdict):
    found = Gain(kind="gain", metric=metric, over=["full"], size=size).judge(
        compared(results, "full", **values), COLORA
    )
    assert found.verdict == verdict
    assert bool(found.takes) == (verdict == "undecided")
    assert tables.signed(values["difference"]) in found.evidence and "against full" in found.evidence


def test_a_gain_in_accuracy_needs_both_tests(results):
    given = compared(results, "full", **difference(0.02, p=0.01, swap=0.05))
    assert Gain(kind="gain", metric="accuracy", over=["full"]).judge(given, COLORA).verdict == "undecided"
    assert Gain(kind="gain", metric="auc", over=["full"]).judge(given, COLORA).verdict == "supported"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.02, 0.02, 0.02), "supported"),
        ((0.004, 0.02, 0.004), "supported"),  # up to 1 point: one of them reaches it
        ((0.002, 0.002, 0.002), "contradicted"),
        ((0.02, 0.02, -0.02), "contradicted"),
        ((0.02, 0.02, None), "undecided"),
    ],
)
def test_a_gain_over_several_needs_all(results, values, verdict):
    given = results
    for against, value in zip(OTHERS, values, strict=True):
        given = compared(given, against, **(difference(0.0, p=0.9) if value is None else difference(value)))
    test = Gain(kind="gain", metric="accuracy", over=list(OTHERS), size=0.01)
    found = test.judge(given, COLORA)
    assert found.verdict == verdict
    assert all(name in found.evidence for name in OTHERS.values())


@pytest.mark.parametrize(
    ("needed", "text"),
    [(40, "about 40 seeds, with which 1 percentage point"), (np.inf, "more test images"), (2, "more seeds"),
     (np.nan, "more seeds")],
)  # fmt: skip
def test_an_undecided_difference_says_what_it_takes(results, needed, text):
    given = compared(results, "full", **difference(0.02, p=0.5), seeds_needed=needed)
    assert Gain(kind="gain", metric="accuracy", over=["full"]).judge(given, COLORA).takes.startswith(text)


# Comparable


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (difference(0.001, p=0.5, equivalent=True), "supported"),
        (difference(-0.004, equivalent=True, half=0.002), "supported"),  # lower, within the margin
        (difference(0.05), "supported"),
        (difference(-0.05), "contradicted"),
        (difference(-0.05, p=0.05), "undecided"),
        (difference(-0.05, swap=0.05), "undecided"),
        (difference(-0.014), "undecided"),  # shown lower, by less than the margin or more
        (difference(-0.02) | {"hi": -0.01}, "undecided"),  # the interval ends at the margin
        (difference(-0.02) | {"hi": -0.0101}, "contradicted"),
        (difference(0.001, p=0.5), "undecided"),
        (difference(-0.05, seeds=1), "undecided"),
    ],
)
def test_comparable_is_judged(results, values, verdict):
    given = compared(results, "ViT", **values)
    found = Comparable(kind="comparable", over=["ViT"]).judge(given, COLORA)
    assert found.verdict == verdict and bool(found.takes) == (verdict == "undecided")
    assert "vit-lora (ViT)" in found.evidence and "margin 1 percentage point" in found.evidence


def test_a_model_from_scratch_is_named_as_one(results):
    found = Comparable(kind="comparable", over=["ViT", "state space"]).judge(results, COLORA)
    assert "vit-lora (ViT)," in found.evidence and "vim (state space, from scratch)," in found.evidence


# Parameters


def parameters(results, ours, theirs):
    methods = results.methods.copy()
    methods.loc[COLORA, "trainable"], methods.loc["full", "trainable"] = ours, theirs
    return Parameters(kind="parameters", at_most=0.2).judge(replace(results, methods=methods), COLORA)


@pytest.mark.parametrize(("ours", "verdict"), [(1000, "supported"), (1001, "contradicted"), (999, "supported")])
def test_parameters_are_counted(results, ours, verdict):
    found = parameters(results, ours, 5000)
    assert found.verdict == verdict and f"{ours:,} against 5,000 of full: {ours / 50:.1f} %" in found.evidence


def test_parameters_need_full_fine_tuning_on_the_same_backbone(results):
    methods = results.methods.copy()
    methods.loc["full", "backbone"] = "other"
    found = Parameters(kind="parameters", at_most=0.2).judge(replace(results, methods=methods), COLORA)
    assert found.verdict == "undecided"
    methods = results.methods.assign(trainable=np.nan)
    methods.loc[COLORA, "trainable"] = 1000
    found = Parameters(kind="parameters", at_most=0.2).judge(replace(results, methods=methods), COLORA)
    assert found.verdict == "undecided"


# Stability


def write_stability(folder, **pairs):
    """stability.csv in which each measure has (value, lo, hi) of the CoLoRA method and of full fine-tuning."""
    rows = [
        (method, name, *values, 3)
        for name, pair in pairs.items()
        for method, values in zip((COLORA, "full"), pair, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["method", "measure", "value", "lo", "hi", "seeds"])
    frame.to_csv(folder / "stability.csv", index=False)


LOW, HIGH, WIDE = (0.01, 0.008, 0.012), (0.03, 0.02, 0.04), (0.02, 0.01, 0.05)
NONE = (0.03, np.nan, np.nan)


@pytest.mark.parametrize(
    ("spread", "jitter", "verdict"),
    [
        ((LOW, HIGH), (WIDE, WIDE), "supported"),
        ((HIGH, LOW), (WIDE, WIDE), "contradicted"),
        ((LOW, HIGH), (HIGH, LOW), "undecided"),
        ((WIDE, HIGH), (WIDE, WIDE), "undecided"),
        (((0.01, 0.008, 0.02), HIGH), (WIDE, WIDE), "undecided"),  # intervals that touch meet
        ((LOW, NONE), (NONE, HIGH), "undecided"),
    ],
)
def test_stability_is_judged(folder, spread, jitter, verdict):
    write_stability(folder, spread=spread, jitter=jitter)
    test = Stability(kind="stability", measures=["spread", "jitter"])
    found = test.judge(load(folder), COLORA)
    assert found.verdict == verdict and bool(found.takes) == (verdict == "undecided")
    assert f"spread between seeds {100 * spread[0][0]:.2f}" in found.evidence


def test_stability_without_its_file_or_a_measure(folder):
    test = Stability(kind="stability", measures=["spread", "drawdown"])
    write_stability(folder, spread=(LOW, HIGH))
    found = test.judge(load(folder), COLORA)
    assert found.verdict == "supported" and "largest drawdown: not measured" in found.evidence
    (folder / "stability.csv").unlink()
    found = test.judge(load(folder), COLORA)
    assert (found.verdict, found.takes) == ("undecided", "run python -m pipelines.summarise")


def test_seeds_that_would_part_intervals():
    """At that number the interval functions of the stability stage part the intervals, with one seed less they meet."""
    ours, theirs = (
        pd.Series({"value": value, "hi": stability.spread_interval(value, 3)[1], "seeds": 3}) for value in (0.01, 0.02)
    )
    n = seeds_to_part("spread", ours, theirs)
    assert n == seeds_to_part("spread", theirs, ours)
    for seeds, parted in ((n, True), (n - 1, False)):
        limits = [stability.spread_interval(value, seeds) for value in (0.01, 0.02)]
        assert (limits[0][1] < limits[1][0]) == parted

    def mean_of(values):
        return pd.Series({"value": values.mean(), "hi": stability.mean_interval(values)[1], "seeds": len(values)})

    # n values with the same mean and the same deviation: ours and theirs, as they would be with n seeds.
    shape = np.array([-1.0, 0.0, 1.0])
    n = seeds_to_part("jitter", mean_of(0.05 + 0.01 * shape), mean_of(0.06 + 0.01 * shape))
    for seeds, parted in ((n, True), (n - 1, False)):
        spread = np.random.default_rng(0).normal(size=seeds)
        spread = 0.01 * (spread - spread.mean()) / spread.std(ddof=1)
        limits = [stability.mean_interval(value + spread) for value in (0.05, 0.06)]
        assert (limits[0][1] < limits[1][0]) == parted
    assert seeds_to_part("jitter", mean_of(0.05 + 0.01 * shape), mean_of(0.0501 + 0.01 * shape)) is None


# Costs


def write_costs(folder, *rows, machine="Some GPU"):
    """cost.csv with a row for each (step, lo, hi, peak, inference, lo, hi, batch), beside a peer that would decide."""
    names = [
        "step_ratio", "step_ratio_lo", "step_ratio_hi", "peak_ratio", "inference_ratio", "inference_ratio_lo",
        "inference_ratio_hi", "batch_size",
    ]  # fmt: skip
    about = {
        "method": COLORA,
        "role": "method",
        "family": "colora",
        "backbone": "vgg16",
        "image_size": 64,
        "precision": "x",
        "peak_mib": 1,
    }
    frame = pd.DataFrame([{**about, **dict(zip(names, row, strict=True))} for row in rows])
    peer = {**about, "role": "peer", **dict.fromkeys(names, 5.0)}
    full = {**about, "method": "full", "family": "full", **dict.fromkeys(names, 5.0)}
    pd.concat([frame, pd.DataFrame([peer, full])]).to_csv(folder / "cost.csv", index=False)
    (folder / "cost.json").write_text(json.dumps({"environment": {"gpu": machine}}))


def cost(folder, **test):
    return Cost(kind="cost", **test).judge(load(folder), COLORA)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.6, 0.7, "supported"),
        (0.8, 0.825, "supported"),  # the bound itself is within it
        (0.82, 0.83, "undecided"),
        (0.825, 0.9, "undecided"),
        (0.8251, 0.9, "contradicted"),
        (np.nan, np.nan, "undecided"),  # no interval
    ],
)
def test_step_time_is_judged_by_its_interval(folder, low, high, verdict):
    write_costs(folder, (0.7, low, high, 1, 1, 1, 1, 8))
    found = cost(folder, ratio="step", at_most=0.825)
    assert found.verdict == verdict and "0.700" in found.evidence and "vgg16, 64 px, batch 8" in found.evidence
    assert found.takes == ("more rounds at vgg16, 64 px, batch 8, x, one run" if verdict == "undecided" else "")
    assert "nan" not in found.evidence


def test_settings_that_disagree_leave_it_undecided(folder):
    write_costs(folder, (0.7, 0.69, 0.71, 1, 1, 1, 1, 8), (0.9, 0.89, 0.91, 1, 1, 1, 1, 64))
    found = cost(folder, ratio="step", at_most=0.825)
    assert found.verdict == "undecided" and found.takes.endswith("it holds only at vgg16, 64 px, batch 8, x, one run")


def write_growth(folder, *rows):
    """cost_growth.csv with a row for each (sweep, step, lo, hi, peak) and what it has else."""
    names = ["sweep", "step_ratio", "step_ratio_lo", "step_ratio_hi", "peak_ratio"]
    about = {
        "method": COLORA, "role": "method", "family": "colora", "backbone": "vgg16", "image_size": 64, "batch_size": 8,
        "precision": "x", "rank": np.nan,
    }  # fmt: skip
    frame = pd.DataFrame([{**about, **dict(zip(names, row[:5], strict=True)), **row[5]} for row in rows])
    frame.to_csv(folder / "cost_growth.csv", index=False)


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        ((0.8, 0.79, 0.81), "supported"),
        ((0.8, 0.79, 0.83), "undecided"),  # the other reading's interval is wide
        ((0.9, 0.89, 0.91), "undecided"),  # both are narrow, and disagree
    ],
)
def test_two_readings_at_a_setting_are_both_shown_and_both_decide(folder, again, verdict):
    write_costs(folder, (0.7, 0.69, 0.71, 0.9, 1, 1, 1, 8))
    write_growth(folder, ("batch", *again, 1.2, {}), ("image", *again, 1.2, {}))
    found = cost(folder, ratio="step", at_most=0.825)
    first, second = found.evidence.split("; ")
    assert first == "0.700 [0.690, 0.710] (vgg16, 64 px, batch 8, x, one run)"
    shown = "{:.3f} [{:.3f}, {:.3f}]".format(*again)
    assert second == f"{shown} (vgg16, 64 px, batch 8, x, same run's growth sweeps)" and found.verdict == verdict
    assert cost(folder, ratio="memory", at_most=1, tolerance=0.01).verdict == "undecided"
    assert cost(folder, ratio="inference", within=0.05).evidence.count("one run") == 1  # which sweeps do not measure


def test_readings_of_something_else_are_no_second_ones(folder):
    write_costs(folder, (0.7, 0.69, 0.71, 0.9, 1, 1, 1, 8))
    others = [{"method": "full"}, {"backbone": "resnet50"}, {"image_size": 32}, {"batch_size": 16}, {"precision": "y"},
              {"compile": True}, {"sweep": "rank", "rank": 2}]  # fmt: skip
    write_growth(folder, *(("batch", 5, 5, 5, 5, other) for other in others))
    found = cost(folder, ratio="step", at_most=0.825)
    assert found.verdict == "supported" and "growth" not in found.evidence


@pytest.mark.parametrize(
    ("peak", "verdict"), [(0.9, "supported"), (0.995, "undecided"), (1.005, "undecided"), (1.02, "contradicted")]
)
def test_memory_allows_for_its_tolerance(folder, peak, verdict):
    write_costs(folder, (1, 1, 1, peak, 1, 1, 1, 8))
    assert cost(folder, ratio="memory", at_most=1, tolerance=0.01).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.99, 1.01, "supported"),
        (0.95, 1.05, "supported"),
        (0.94, 1.01, "undecided"),
        (1.04, 1.06, "undecided"),
        (1.051, 1.2, "contradicted"),
        (0.5, 0.6, "contradicted"),
    ],
)
def test_inference_is_to_be_unchanged(folder, low, high, verdict):
    write_costs(folder, (1, 1, 1, 1, (low + high) / 2, low, high, 8))
    assert cost(folder, ratio="inference", within=0.05).verdict == verdict


def test_costs_that_are_not_there(folder):
    found = cost(folder, ratio="step", at_most=0.825)
    assert (found.verdict, found.takes) == ("undecided", "run python -m pipelines.cost")
    write_costs(folder)
    found = cost(folder, ratio="step", at_most=0.825)
    assert found.verdict == "undecided" and "a CoLoRA method and full fine-tuning" in found.takes
    (folder / "cost.csv").write_text("method,role\n")
    with pytest.raises(ReportError, match=r"cost.csv: columns family, .* run `python -m pipelines.cost` again"):
        cost(folder, ratio="step", at_most=0.825)
    (folder / "cost.csv").write_text("")
    with pytest.raises(ReportError, match=r"cost.csv: not readable as CSV"):
        cost(folder, ratio="step", at_most=0.825)


def test_costs_of_the_method_on_another_network_count_and_other_methods_are_named(folder):
    write_costs(folder, (0.7, 0.69, 0.71, 1, 1, 1, 1, 8))
    frame = pd.read_csv(folder / "cost.csv")
    frame.assign(backbone="resnet50", method=frame.method.replace(COLORA, f"resnet50-{COLORA}")).to_csv(
        folder / "cost.csv", index=False
    )
    assert (
        cost(folder, ratio="step", at_most=0.825).evidence
        == "0.700 [0.690, 0.710] (resnet50, 64 px, batch 8, x, one run)"
    )
    frame.assign(method=frame.method.replace(COLORA, "colora-block5")).to_csv(folder / "cost.csv", index=False)
    assert "(colora-block5, vgg16, 64 px" in cost(folder, ratio="step", at_most=0.825).evidence


def test_epoch_times_of_runs_never_decide(folder, results):
    slow = results.runs.assign(epoch_s=np.where(results.runs.family == "colora", 1e6, 1e-6))
    methods = results.methods.assign(epoch_s=np.where(results.methods.family == "colora", 1e6, 1e-6))
    assert claims.verdicts(replace(results, runs=slow, methods=methods)) == claims.verdicts(results)

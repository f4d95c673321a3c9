"""The audit of the paper's figures: arithmetic against known values, each outcome forced, counts counted anew."""

import numpy as np
import pandas as pd
import pytest
import yaml

from pipelines.training.counting import count_method
from report import claims
from report.claims import audit
from report.reading import PAPER

COUNTS = {"a": 1_234_999, "b": 1_235_001, "c": 910_000}


def given(**row):
    """Sources with one row of method 'x' and one of method 'y'."""
    base = {"backbone": "vgg16", "dataset": "octmnist", "training_set": "full", "source": "s"}
    rows = [
        {**base, "method": "x", **row},
        {**base, "method": "y", "accuracy": 0.9, "trainable_m": 10.0, "total_m": 10.0},
    ]
    columns = ["accuracy", "accuracy_sd", "accuracy_max", "auc", "trainable_m", "total_m", "epoch_min", "memory_gib"]
    return audit.Sources(pd.DataFrame(rows).reindex(columns=["method", *base, *columns]), COUNTS)


@pytest.fixture(scope="module")
def audited():
    sources = audit.sources(pd.read_csv(PAPER))
    return {figure.figure: figure.result(sources) for figure in claims.ledger(claims.LEDGER).audit}


def test_counts_are_those_of_the_models():
    """Every count that the report relies on, counted from the networks; the report itself needs no torch."""
    table = pd.read_csv(audit.COUNTS)
    for row in table.itertuples():
        section = {"backbone": "vgg16", "weights": "random", **yaml.safe_load(row.section)}
        counted = count_method(row.method, section, num_classes=4, image_size=224)
        assert (counted["trainable"], counted["total"]) == (row.trainable, row.total), row.method
    assert table.method.is_unique


def test_what_is_known_of_the_papers_counts(audited):
    agrees = {name.removeprefix("Trained parameters, "): result.agrees for name, result in audited.items()}
    assert agrees['CoLoRA in blocks 2-5, "pointwise only"'] == "no; it is that of depthwise only"
    assert agrees["CoLoRA in blocks 3-5"] == "only without pointwise bias"
    for blocks in ("blocks 1-5", "blocks 2-5", "blocks 4-5", "block 5"):
        assert agrees[f"CoLoRA in {blocks}"] == "yes"
    assert agrees["adapters (their design is not given)"] == "cannot be said"
    both = audited["Trained parameters, CoLoRA in blocks 1-5"].recomputed
    assert "2,545,860 (2.55M)" in both and "2,550,084 (2.55M)" in both
    bias = audited["The branch has a bias in its pointwise convolution, which the merge drops"]
    assert bias.agrees == "no; without pointwise bias" and "with pointwise bias 4 of 5" in bias.recomputed


@pytest.mark.parametrize(
    ("figure", "text", "agrees"),
    [
        ("Shorter epochs than full fine-tuning, CoLoRA in blocks 2-5 (minutes)", "3.00 against 3.27: 8.3 % less", "no"),
        ("Less peak memory than full fine-tuning (GiB)", "3.172 against 3.320: 4.5 % less", "yes"),
        ("Fewer trained parameters than full fine-tuning, VGG16", "83.7 % less", "yes"),
        ("Fewer trained parameters than the whole network has, ResNet50", "62.3 % less", "no"),
        ("Accuracy above the best ViT, state-space and KAN model that it quotes", "+0.011", "yes"),
        ("AUC above the best ViT, state-space and KAN model that it quotes", "\N{MINUS SIGN}0.001", "no"),
        ("AUC above its own head-only transfer (table 5, v1)", "+0.013", "yes"),
        ("A gain of 1 % on the 1,000 test images", "±0.012", "no; within chance on one test set"),
        ("Spread of full fine-tuning's accuracy over runs", "7.8 sd", "doubtful; the number of runs is not stated"),
    ],
)  # fmt: skip
def test_what_is_known_of_the_papers_other_figures(audited, figure, text, agrees):
    assert text in audited[figure].recomputed and audited[figure].agrees == agrees


@pytest.mark.parametrize(
    ("stated", "named", "other", "agrees"),
    [
        (1.23, {"one": "a"}, {}, "yes"),
        (1.24, {"one": "a"}, {}, "no"),
        (1.24, {"one": "a", "two": "b"}, {}, "only two"),
        (0.91, {"one": "a"}, {"three": "c"}, "no; it is that of three"),
        (0.92, {"one": "a"}, {"three": "c"}, "no"),
        (0.91, {}, {"three": "c"}, "cannot be said"),
    ],
)
def test_counts_are_compared_as_printed(stated, named, other, agrees):
    found = audit.count(given(trainable_m=stated), of={"method": "x"}, named=named, other=other)
    assert (found.stated, found.agrees) == (f"{stated:.2f}M", agrees)
    assert ("1,234,999 (1.23M)" in found.recomputed) == ("one" in named)


@pytest.mark.parametrize(("value", "text"), [(1.235, "1.24M"), (2.5, "2.50M"), (0.005, "0.01M"), (15.583812, "15.58M")])
def test_millions_round_half_up(value, text):
    assert audit.millions(value) == text


@pytest.mark.parametrize(("least", "agrees"), [(0.5, "yes"), (0.51, "no")])
def test_a_reduction_is_a_share(least, agrees):
    sources = given(trainable_m=5.0)
    found = audit.reduction(sources, of={"method": "x"}, than={"method": "y"}, column="trainable_m", least=least)
    assert found == (f"{100 * least:g} % less", "5.00M against 10.00M: 50.0 % less", agrees)


@pytest.mark.parametrize(("ours", "size", "agrees"), [(0.914, 0.01, "yes"), (0.915, 0.01, "no"), (0.89, 0.01, "no")])
def test_a_gap_is_rounded_as_it_is_stated(ours, size, agrees):
    others = {"method": ["y", "z"]}
    found = audit.gap(given(accuracy=ours), of={"method": "x"}, than=others, column="accuracy", size=size, digits=2)
    assert found.agrees == agrees


def test_chance_is_the_binomial_spread():
    """Against the spread of simulated test sets."""
    shares = np.random.default_rng(0).binomial(1000, 0.96, 200_000) / 1000
    found = audit.chance(given(accuracy=0.96), of={"method": "x"}, images=1000, size=0.01)
    assert f"±{1.96 * shares.std():.3f}" in found.recomputed and found.agrees.startswith("no")
    more = audit.chance(given(accuracy=0.96), of={"method": "x"}, images=10_000, size=0.01)
    assert more.agrees == "yes"


def test_runs_needed_are_never_more_than_there_were():
    """Samuelson's inequality on real samples, however uneven; a single far value among n needs all n of them."""
    rng = np.random.default_rng(1)

    def needed(values, ddof):
        row = {"accuracy": values.mean(), "accuracy_sd": values.std(ddof=ddof), "accuracy_max": values.max()}
        return int(audit.runs(given(**row), of={"method": "x"}, plausible=10).recomputed.split("takes ")[1].split()[0])

    for _ in range(200):
        n = int(rng.integers(2, 30))
        values = 0.9 + 0.05 * rng.standard_t(1.5, n).clip(-10, 10)
        assert needed(values, 1) <= n and needed(values, 0) <= n
    for n in (5, 20):
        far = np.r_[np.zeros(n - 1), 100.0]  # large, so that the allowance for rounding does not matter
        assert needed(far, 0) == n


@pytest.mark.parametrize(
    ("fits", "agrees"),
    [((True, True), "yes"), ((False, True), "yes"), ((True, False), "no; plain"), ((False, False), "no")],
)
def test_a_convention_fits_all_counts_or_does_not(fits, agrees):
    counts = {name: 2_000_000 if fit else 3_000_000 for name, fit in zip(("x", "x-bias"), fits, strict=True)}
    sources = audit.Sources(given(trainable_m=2.0).paper, counts)
    conventions = {"plain": "", "bias": "-bias"}
    found = audit.convention(sources, of=["x"], training_set="full", conventions=conventions, stated_is="bias")
    assert found.agrees == agrees

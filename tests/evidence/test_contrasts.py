"""Declared contrasts: what the file may say, Holm's family, the verdict words, and what would decide."""

import json
import re

import numpy as np
import pytest
import yaml

from pipelines.evidence import contrasts, declared, outcomes, schemas, stats
from pipelines.evidence.contrasts import CONTRADICTED, INCONCLUSIVE, NOT_TESTED, SUPPORTED, Network, Trial, judge
from pipelines.evidence.declared import Declared
from pipelines.evidence.summary import summarise
from pipelines.files.errors import UserError
from pipelines.runs.reading import read_runs
from tests import fake_results as fake
from tests.evidence.made import graded, outcome
from tests.evidence.test_summarise import _work_in  # noqa: F401


def test_what_is_declared():
    found = declared.read()
    assert found.method == "colora-blocks2-5" and found.margin == 0.02
    asked = found.contrasts("test")
    accuracy = {name: size for name, metric, size in asked if metric == "accuracy"}
    assert len(accuracy) <= declared.MOST and accuracy["full"] == 0.041 and accuracy["adapters"] is None
    assert ("head-only", "auc", 0.013) in asked
    # Elsewhere classes differ in size; the sizes claimed are the same.
    assert ("full", "balanced_accuracy", 0.041) in found.contrasts("elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 2}, r"declared.margin: .* less than 1, found 2"),
        ({"against": {}}, "declared.against: .* at least 1 item"),
        ({"against": {"full": {}}}, "missing key 'declared.against.full.accuracy'"),
        ({"against": {"full": {"accuracy": "some"}}}, "declared.against.full.accuracy"),
        ({"against": {f"m{i}": {"accuracy": 0.1} for i in range(9)}}, "at most 8 items"),
        ({"against": {"colora-blocks2-5": {"accuracy": 0.1}}}, "is the method itself"),
        ({"sizes": 1}, "unknown key 'declared.sizes'"),
    ],
)
def test_what_is_declared_wrongly_is_named(tmp_path, change, message):
    content = yaml.safe_load(declared.CLAIMS.read_text())
    content["declared"] |= change
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message) as caught:
        declared.read(path)
    assert str(path) in str(caught.value)


def test_nothing_declared_is_named(tmp_path):
    with pytest.raises(UserError, match="no section `declared`"):
        declared.read(tmp_path / "gone.yaml")
    (tmp_path / "claims.yaml").write_text("claims: []\n")
    with pytest.raises(UserError, match="no section `declared`"):
        declared.read(tmp_path / "claims.yaml")


@pytest.mark.parametrize(
    ("lo", "hi", "size", "guard", "words"),
    [
        (0.01, 0.05, None, 0.01, (SUPPORTED, None, SUPPORTED)),
        (0.01, 0.05, 0.04, 0.01, (SUPPORTED, SUPPORTED, SUPPORTED)),
        (0.01, 0.03, 0.04, 0.01, (SUPPORTED, CONTRADICTED, SUPPORTED)),
        (-0.01, 0.05, 0.04, 0.2, (INCONCLUSIVE, INCONCLUSIVE, SUPPORTED)),
        (-0.03, 0.03, 0.04, 0.2, (INCONCLUSIVE, CONTRADICTED, INCONCLUSIVE)),
        (-0.06, -0.03, 0.04, 0.01, (CONTRADICTED, CONTRADICTED, CONTRADICTED)),
        (-0.06, -0.01, 0.04, 0.01, (CONTRADICTED, CONTRADICTED, INCONCLUSIVE)),
        (0.01, 0.05, 0.04, 0.06, (INCONCLUSIVE, INCONCLUSIVE, SUPPORTED)),  # the swap test does not agree
        (0.01, 0.05, 0.04, np.nan, (SUPPORTED, SUPPORTED, SUPPORTED)),  # is not asked
        (np.nan, np.nan, 0.04, 0.2, (INCONCLUSIVE, INCONCLUSIVE, INCONCLUSIVE)),
    ],
)
def test_verdict_words(lo, hi, size, guard, words):
    assert tuple(judge(lo, hi, 0.02, size, guard).values()) == words
    assert judge(lo, hi, None, size, guard)["noninferior"] is None


DECLARED = Declared.model_validate(
    {
        "method": "ours",
        "margin": 0.02,
        "external_metric": "balanced_accuracy",
        "against": {
            "full": {"accuracy": 0.04},
            "head": {"accuracy": "none"},
            "scratch": {"accuracy": 0.01, "published_parameters": 14_000_000},
        },
    }
)


def trial(rates, seeds=10, folds=5, networks=None, n=120, **more):
    """Runs of a method each that are right at this rate, on repeated folds of n images."""
    found = {}
    for place, (method, rate) in enumerate(rates.items()):
        found[method] = []
        for seed in range(seeds):
            repeat, fold = divmod(seed, folds)
            own = np.sort(np.random.default_rng(repeat).permutation(folds * n)[fold * n : (fold + 1) * n])
            labels = own % 2
            right = np.random.default_rng([place, seed]).random(n) < rate
            probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
            found[method].append(outcome(labels, probabilities, seed, indices=own, n_units=folds * n, method=method))
    known = {method: Network(False, 15_000_000, 0.99) for method in rates} | (networks or {})
    return Trial("test", 1.0, found, known, {name: name for name in rates}, folds, folds, **more)


def test_one_family_of_what_can_be_tested():
    """Holm's over the three accuracy contrasts; the interval printed is at the level of its step."""
    made = trial({"ours": 0.85, "full": 0.95, "head": 0.6, "scratch": 0.84})
    rows = {row["comparator"]: row for row in contrasts.rows(DECLARED, made)}
    assert list(rows) == ["full", "head", "scratch"]
    pairs = {name: outcomes.paired(made.outcomes["ours"], made.outcomes[name]) for name in rows}
    found = {name: outcomes.difference(own, "accuracy") for name, own in pairs.items()}
    adjusted, levels = stats.holm([own.p_value() for own in found.values()])
    for (name, row), p, level in zip(rows.items(), adjusted, levels):
        assert (row["p_holm"], row["level"]) == pytest.approx((p, level))
        assert (row["lo"], row["hi"]) == pytest.approx(found[name].interval(level))
        assert (row["trained_lo"], row["trained_hi"]) == pytest.approx(found[name].trained_interval(level))
        gaps = np.array([a.figure("accuracy")[0] - b.figure("accuracy")[0] for a, b in pairs[name]])
        assert row["corrected_lo"] == pytest.approx(stats.corrected_interval(gaps, 120 / 400, level)[0])
        assert (row["runs"], row["folds"], row["repeats"], row["images"]) == (10, 5, 2, 600)
    words = {name: (row["higher"], row["reaches"], row["noninferior"]) for name, row in rows.items()}
    assert words["full"] == (CONTRADICTED, CONTRADICTED, CONTRADICTED)
    assert words["head"] == (SUPPORTED, None, SUPPORTED) and "reason" not in rows["head"]
    assert words["scratch"][:2] == (INCONCLUSIVE, INCONCLUSIVE)
    assert rows["scratch"]["reason"].endswith("repeats in place of 2 show a true difference of 0.01 with 80 % power")


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Network(True, 14_000_000, 0.85), "scratch did not learn: training accuracy 0.850, more than 0.90 is asked"),
        (
            Network(False, 14_000_000, 0.54),
            "scratch did not learn: .* more than 0.5. is asked of a network that is not",
        ),
        (Network(True, 1_200_000, 0.99), "from scratch at a size nobody publishes: 1.2 million parameters, .* 14.0"),
    ],
)
def test_what_cannot_be_tested_is_in_no_family(network, reason):
    rates = {"ours": 0.85, "full": 0.95, "head": 0.6, "scratch": 0.5}
    rows = {row["comparator"]: row for row in contrasts.rows(DECLARED, trial(rates, networks={"scratch": network}))}
    own = rows["scratch"]
    assert own["higher"] == own["reaches"] == own["noninferior"] == NOT_TESTED
    assert re.search(reason, own["reason"])
    assert own["difference"] == pytest.approx(0.35, abs=0.05) and "p" not in own and "lo" not in own
    del rates["scratch"]
    alone = {row["comparator"]: row for row in contrasts.rows(DECLARED, trial(rates))}
    assert alone["scratch"]["reason"] == "no run of scratch" and "difference" not in alone["scratch"]
    for name in ("full", "head"):
        assert (rows[name]["p_holm"], rows[name]["lo"]) == (alone[name]["p_holm"], alone[name]["lo"])


def test_a_pretrained_network_may_be_small_and_a_published_one_is_tested():
    for network in (Network(False, 1_200_000, 0.99), Network(True, 13_000_000, 0.99)):
        rates = {"ours": 0.85, "scratch": 0.84}
        rows = {row["comparator"]: row for row in contrasts.rows(DECLARED, trial(rates, networks={"scratch": network}))}
        assert rows["scratch"]["higher"] == INCONCLUSIVE and rows["full"]["higher"] == NOT_TESTED


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (1, "two runs or more"),
        (5, "a second repeat of the folds, which would say how many show a true difference of 0.01 with 80 % power"),
    ],
)
def test_what_would_decide(seeds, message):
    rows = {row["comparator"]: row for row in contrasts.rows(DECLARED, trial({"ours": 0.85, "scratch": 0.84}, seeds))}
    assert rows["scratch"]["reason"] == message


def test_a_reason_stands_by_every_inconclusive_word():
    """Worse for sure, but by about the margin."""
    row = contrasts.rows(DECLARED, trial({"ours": 0.85, "full": 0.88}, n=1000))[0]
    assert (row["higher"], row["reaches"], row["noninferior"]) == (CONTRADICTED, CONTRADICTED, INCONCLUSIVE)
    assert row["reason"] == "whether it is at most the margin worse: more repeats, or more patients"


def test_a_class_of_one_patient_leaves_no_interval_and_says_so():
    labels, found = np.array([0] * 30 + [1] * 4), {}
    units = np.r_[np.arange(30), [30] * 4]  # all images of class 1 are of one patient
    for method, wrong in (("ours", 2), ("full", 15)):
        right = np.arange(34) >= wrong
        probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
        found[method] = [outcome(labels, probabilities, seed, units=units, method=method) for seed in range(4)]
    networks = {method: Network(False, 1, 0.99) for method in found}
    row = contrasts.rows(DECLARED, Trial("clinic", 1.0, found, networks, {name: name for name in found}, 1, 1))[0]
    assert row["metric"] == "balanced_accuracy" and np.isnan(row["lo"]) and row["higher"] == INCONCLUSIVE
    assert row["reason"] == "a class whose images are all of one patient leaves no interval: more patients of it"


def test_what_no_number_of_repeats_decides():
    """Two networks that differ on the same few images at every repeat: only other images would tell."""
    n, found = 200, {"ours": [], "scratch": []}
    labels = np.zeros(n, int)
    differ = np.random.default_rng(0).choice([0, 1, 2], n, p=[0.9, 0.05, 0.05])
    for seed in range(6):
        repeat, fold = divmod(seed, 2)
        own = np.sort(np.random.default_rng(repeat).permutation(n)[fold * 100 : (fold + 1) * 100])
        for method, wrong in (("ours", 1), ("scratch", 2)):
            answers = graded(differ[own] != wrong)[1]
            found[method].append(outcome(labels[own], answers, seed, indices=own, n_units=n, method=method))
    networks = {method: Network(False, 1, 1.0 + 0.1) for method in found}
    names = {method: method for method in found}
    row = contrasts.rows(DECLARED, Trial("test", 1.0, found, networks, names, 2, 2))[-1]
    assert row["higher"] == INCONCLUSIVE and row["repeats_needed"] == np.inf
    assert row["reason"].startswith("not reachable on these images")


def test_the_margin_of_accuracy_says_nothing_of_an_auc():
    content = DECLARED.model_dump(exclude_none=True)
    for sizes, needed in (({"auc": "none"}, False), ({"auc": 0.03}, True)):
        content["against"] = {"full": {"accuracy": 0.04, **sizes}}
        made = trial({"ours": 0.9, "full": 0.89})
        (row,) = [r for r in contrasts.rows(Declared.model_validate(content), made) if r["metric"] == "auc"]
        assert row["margin"] is None and row["higher"] == INCONCLUSIVE
        assert np.isfinite(row["repeats_needed"]) == needed
        assert row["reason"].startswith("more repeats, or more patients") != needed


def test_the_guard_can_hold_back_a_verdict(monkeypatch):
    monkeypatch.setattr(stats, "swap_p", lambda *parts: 0.2)
    made = trial({"ours": 0.95, "head": 0.6})
    row = contrasts.rows(DECLARED, made)[1]
    assert row["lo"] > 0 and row["higher"] == INCONCLUSIVE
    assert row["reason"] == "the patient swap test does not agree (Holm's p 0.2): more patients"


def test_balanced_accuracy_swaps_by_parts_that_sum_to_it():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 90, p=[0.6, 0.3, 0.1])
    probabilities = rng.dirichlet(np.ones(3), 90)
    one = outcome(labels, probabilities, units=np.arange(90) // 3)
    for metric in ("accuracy", "balanced_accuracy"):
        assert one.parts(metric).sum() == pytest.approx(one.figure(metric)[0])


def test_the_file_of_a_profile():
    """Everything together, on made-up runs: rows of a profile with external families and methods missing."""
    params = fake.params(["full", "head-only", "colora-blocks2-5", "vit-full", "medmamba"], seeds=range(4))
    fake.write_profile(params, folds=2)
    fake.write_patients(params, 400)
    summarise(params)
    found = schemas.read(params.results_dir, "contrasts").set_index(["metric", "comparator"])
    assert len(found) == 12 and (found.loc["accuracy", "full"].folds, found.loc["accuracy", "full"].repeats) == (2, 2)
    assert found.loc["accuracy", "full"].patients == 200
    assert found.loc["accuracy", "kan-head-full"].reason == "no run of kan-head-full"
    test = outcomes.gather(params, read_runs(params)[0])["test"]
    own = outcomes.difference(outcomes.paired(test["colora-blocks2-5"], test["full"]), "accuracy")
    row = found.loc["accuracy", "full"]
    assert (row.lo, row.hi) == pytest.approx(own.interval(row.level), rel=1e-4)
    tested = found[found.higher != NOT_TESTED]
    assert (
        set(tested.loc["auc"].index) == {"head-only", "vit-full", "medmamba"} and tested.loc["auc"].margin.isna().all()
    )
    assert stats.holm(tested.loc["accuracy"].p)[0] == pytest.approx(tested.loc["accuracy"].p_holm, rel=1e-4)
    chosen = json.loads((params.results_dir / "chosen.json").read_text())
    assert chosen["method"] == "colora-blocks2-5" and chosen["against"] == ["full", "head-only", "vit-full", "medmamba"]
    assert chosen["folds"] == 2 and set(chosen["repeats"].values()) == {2.0}
    assert chosen["absent"] == ["conv-lora-r8", "adapters", "bitfit", "kan-head-full"]
    metrics = json.loads((params.results_dir / "metrics.json").read_text())
    assert (
        len(metrics) <= 16
        and "step.colora-blocks2-5" not in metrics
        and metrics["acc.full"] == pytest.approx(np.mean([own.correct.mean() for own in test["full"]]), rel=1e-5)
    )


def test_the_step_ratio_is_that_of_the_profiles_own_setting():
    params = fake.params(["full", "colora-blocks2-5"])
    fake.write_profile(params)
    ratios = [("full", 1.0), ("colora-blocks2-5", 0.8), ("colora-blocks2-5", 0.5)]
    rows = [{"method": method, "step_ratio": ratio} for method, ratio in ratios]
    schemas.frame("cost", rows).to_csv(params.results_dir / "cost.csv", index=False)
    summarise(params)
    assert json.loads((params.results_dir / "metrics.json").read_text())["step.colora-blocks2-5"] == 0.8


def test_folds_are_the_data_cards_where_runs_are_missing():
    params = fake.params(["full", "colora-blocks2-5"], seeds=range(10), allow_missing=True)
    skip = [(method, seed) for method in params.method for seed in range(10) if seed not in (0, 1, 5, 6)]
    fake.write_profile(params, skip, folds=5, n_test=80)
    path = params.results_dir / "data" / "card.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"folds": 5}))
    summarise(params)
    chosen = json.loads((params.results_dir / "chosen.json").read_text())
    assert chosen["folds"] == 5 and set(chosen["repeats"].values()) == {0.8}


def test_without_the_declared_method_there_is_nothing_to_test_and_pairs_are_told():
    params = fake.params(["full", "head-only"])
    fake.write_profile(params)
    summarise(params)
    found = schemas.read(params.results_dir, "contrasts")
    assert set(found.higher) == {NOT_TESTED} and set(found.reason) == {"no run of colora-blocks2-5"}
    assert len(schemas.read(params.results_dir, "pairs")) == 4
    assert json.loads((params.results_dir / "chosen.json").read_text())["method"] is None
    assert list(json.loads((params.results_dir / "metrics.json").read_text())) == [
        "acc.full", "acc.head-only", "auc.full", "auc.head-only", "trainable.full",
    ]  # fmt: skip

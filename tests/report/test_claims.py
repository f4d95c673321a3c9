"""The ledger of claims: each verdict is that of contrasts.csv or follows from the costs; what is missing is said."""

import json

import pytest
import yaml

from pipelines.evidence import schemas
from pipelines.files.errors import UserError
from report import claims
from report.claims import tests as kinds
from report.reading import load
from tests.report import made


def judged(folder, **options):
    """{id: Verdict} of made-up results with these options."""
    return {own.id: own for own in claims.verdicts(load(made.write(folder / "fake", **options)))}


def test_every_claim_has_a_verdict_evidence_and_scope(tmp_path):
    found = judged(tmp_path)
    assert len(found) == len(claims.ledger(claims.LEDGER).claims) >= 20
    for own in found.values():
        assert own.verdict in kinds.WORDS
        assert bool(own.takes) == (own.verdict in ("inconclusive", "not tested"))
        assert all((own.claim, own.where, own.test, own.evidence, own.scope))


def test_declared_method_and_comparators_are_those_of_the_claims():
    content = yaml.safe_load(claims.LEDGER.read_text())
    assert claims.method_of_claims() == made.METHOD == content["declared"]["method"]
    against = {
        test["against"]
        for claim in content["claims"]
        for test in (claim["test"], claim["test"].get("contrast", {}))
        if test.get("kind") == "contrast"
    }
    assert against <= set(content["declared"]["against"]) == set(made.COMPARATORS)
    for claim in content["claims"]:
        test = claim["test"]
        if test["kind"] == "contrast" and test["says"] == "reaches":  # a size must be declared to be tested
            assert isinstance(content["declared"]["against"][test["against"]][test["metric"]], float)


@pytest.mark.parametrize(
    ("difference", "higher", "reaches"),
    [(0.05, "supported", "supported"), (0.02, "supported", "contradicted"), (0.03, "supported", "supported"),
     (-0.05, "contradicted", "contradicted"), (0.01, "inconclusive", "contradicted")],
)  # fmt: skip
def test_accuracy_is_told_as_the_contrasts_say(tmp_path, difference, higher, reaches):
    found = judged(tmp_path, contrasts=[made.contrast("full", difference)])
    assert found["accuracy-full"].verdict == higher and found["accuracy-full-size"].verdict == reaches
    assert (
        f"[{difference - 0.015:+.3f}, {difference + 0.015:+.3f}]".replace("-", "\N{MINUS SIGN}")
        in found["accuracy-full"].evidence
    )
    assert "claimed +0.041" in found["accuracy-full-size"].evidence
    takes = {"inconclusive": "4 repeats of all folds would decide it"}
    assert found["accuracy-full"].takes == takes.get(higher, "")


def test_what_was_not_tested_says_why(tmp_path):
    odd = made.contrast(
        "medmamba", float("nan"), higher="not tested", reaches="not tested", noninferior="not tested",
        reason="training accuracy not above chance",
    )  # fmt: skip
    found = judged(tmp_path, methods=("full", made.METHOD, "medmamba"), contrasts=[made.contrast("full", 0.05), odd])
    assert found["comparable-state-space"].verdict == "not tested"
    assert found["comparable-state-space"].takes == "training accuracy not above chance"
    assert found["comparable-vit"].takes == f"{made.METHOD} and vit-full are not both in this profile"
    assert found["stability"].verdict == "not tested"  # no stability.csv


def test_parameters_are_counted(tmp_path):
    own = judged(tmp_path)["parameters"]
    assert own.verdict == "supported" and "2,540,292 against 15,583,812 of full: 16.3 %" in own.evidence
    found = judged(tmp_path / "other", methods=("head-only", made.METHOD))["parameters"]
    assert found.verdict == "not tested" and "full" in found.takes


@pytest.mark.parametrize(
    ("step", "peak", "words"),
    [((0.7, 0.69, 0.71), 0.9, ("supported", "supported")), ((0.9, 0.88, 0.92), 1.2, ("contradicted",) * 2),
     ((0.82, 0.8, 0.84), 0.995, ("inconclusive",) * 2)],
)  # fmt: skip
def test_costs_are_judged_by_their_intervals(tmp_path, step, peak, words):
    found = judged(tmp_path, cost=made.costs(step, peak))
    assert (found["epoch-time"].verdict, found["memory"].verdict) == words
    assert found["epoch-time"].scope == "vgg16 on Some CPU, 2 threads"


def test_a_second_reading_that_disagrees_leaves_it_open(tmp_path):
    again = [{**row, "sweep": "batch"} for row in made.costs((0.9, 0.88, 0.92))]
    again = [{key: row[key] for key in row if key in schemas.TABLES["cost_growth"].columns} for row in again]
    found = judged(tmp_path, cost=made.costs((0.7, 0.69, 0.71)), cost_growth=again)
    assert found["epoch-time"].verdict == "inconclusive" and "0.900" in found["epoch-time"].evidence
    other = [{**row, "batch_size": 99} for row in again]  # at another setting it is no second reading
    found = judged(tmp_path / "other", cost=made.costs((0.7, 0.69, 0.71)), cost_growth=other)
    assert found["epoch-time"].verdict == "supported"


def test_inference_is_decided_by_identity(tmp_path):
    assert judged(tmp_path / "same")["inference"].verdict == "supported"
    other = judged(tmp_path / "other", cost=made.costs(operators="more"))["inference"]
    assert other.verdict == "contradicted" and "other operators" in other.evidence
    none = judged(tmp_path / "none", cost=[])["inference"]
    assert none.verdict == "not tested" and none.takes == "run `make cost` with this profile active"


def stable(value, low, high, method, measure="jitter"):
    return {"method": method, "measure": measure, "value": value, "lo": low, "hi": high, "runs": 5}


@pytest.mark.parametrize(
    ("rows", "word"),
    [([stable(0.1, 0.05, 0.15, made.METHOD), stable(0.3, 0.2, 0.4, "full")], "supported"),
     ([stable(0.3, 0.2, 0.4, made.METHOD), stable(0.1, 0.05, 0.15, "full")], "contradicted"),
     ([stable(0.2, 0.1, 0.3, made.METHOD), stable(0.25, 0.2, 0.4, "full")], "inconclusive"),
     ([stable(0.1, 0.05, 0.15, made.METHOD), stable(0.3, 0.2, 0.4, "full"),
       stable(0.3, 0.2, 0.4, made.METHOD, "drawdown"), stable(0.1, 0.05, 0.15, "full", "drawdown")], "inconclusive")],
)  # fmt: skip
def test_stability_by_intervals_that_do_not_meet(tmp_path, rows, word):
    assert judged(tmp_path, stability=rows)["stability"].verdict == word


def test_a_claim_about_several_data_sets_needs_them_all(tmp_path):
    results = load(made.write(tmp_path / "own"))
    test = kinds.Elsewhere(
        kind="elsewhere", datasets=["pathmnist", "bloodmnist"],
        contrast={"kind": "contrast", "says": "higher", "metric": "accuracy", "against": "head-only"},
    )  # fmt: skip

    def other(name, difference):
        card = {"settings": {"source": "medmnist", "image_size": 224, "medmnist": {"dataset": name}}}
        made.write(tmp_path / name, card=card, contrasts=[made.contrast("head-only", difference)])

    other("pathmnist", 0.05)
    found = test.judge(results, made.METHOD)
    assert found.verdict == "not tested"
    assert found.takes == "a profile on each of bloodmnist"
    assert found.evidence.startswith("pathmnist: +0.050") and found.evidence.endswith("bloodmnist: not run")
    other("bloodmnist", 0.05)
    assert test.judge(results, made.METHOD).verdict == "supported"
    (tmp_path / "bloodmnist" / "contrasts.csv").unlink()
    rows = schemas.frame("contrasts", [made.contrast("head-only", -0.05)])
    rows.to_csv(tmp_path / "bloodmnist" / "contrasts.csv", index=False)
    assert test.judge(results, made.METHOD).verdict == "contradicted"
    (tmp_path / "pathmnist" / "summary.json").unlink()  # one that contradicts is no verdict on all either
    found = test.judge(results, made.METHOD)
    assert found.verdict == "not tested" and found.takes == "a profile on each of pathmnist"


@pytest.mark.parametrize(
    ("source", "text"),
    [("phantom", "say nothing about OCT images"), ("folder", "1,000 images of a folder, not OCTMNIST"),
     ("medmnist", "vgg16 on octmnist")],
)  # fmt: skip
def test_verdicts_on_accuracy_hold_for_their_data_only(tmp_path, source, text):
    assert text in judged(tmp_path, source=source)["accuracy-full"].scope


def test_the_table_has_every_claim_and_the_tally_counts_them(tmp_path):
    results = load(made.write(tmp_path / "fake"))
    found = claims.verdicts(results)
    table = claims.claims(results, found)
    assert list(table.text["Verdict"]) == [own.verdict for own in found] and len(table.widths) == table.text.shape[1]
    for word in kinds.WORDS:
        assert f"{sum(own.verdict == word for own in found)} {word}" in claims.tally(found)


ERRORS = {
    "kind": (lambda c: c["claims"][1]["test"].update(kind="gian"), "claims.1.test: .*'gian'.*expected tags"),
    "no kind": (lambda c: c["claims"][1]["test"].pop("kind"), "claims.1.test: Unable to extract tag"),
    "key": (lambda c: c["claims"][2].update(wher=1), "unknown key 'claims.2.wher'"),
    "missing": (lambda c: c["claims"][0].pop("claim"), "missing key 'claims.0.claim'"),
    "type": (lambda c: c["claims"][0]["test"].update(at_most="much"), "at_most: .*found 'much'"),
    "twice": (lambda c: c["claims"].append(c["claims"][0]), "id parameters is there twice"),
    "list": (lambda c: c.update(claims={}), "claims: Input should be a valid list"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_ledger_that_cannot_be_used_is_told(tmp_path, name):
    change, message = ERRORS[name]
    content = yaml.safe_load(claims.LEDGER.read_text())
    change(content)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message) as caught:
        claims.ledger(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [None, "a: [", "", "3"])
def test_a_ledger_that_is_no_ledger(tmp_path, content):
    path = tmp_path / "claims.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="claims.yaml: "):
        claims.ledger(path)


def test_a_cost_file_that_cannot_be_read(tmp_path):
    folder = made.write(tmp_path / "fake")
    (folder / "cost.json").write_text("{")
    with pytest.raises(UserError, match=r"cost.json: not readable as JSON .* run `python -m pipelines.cost --again`"):
        claims.verdicts(load(folder))
    (folder / "cost.json").write_text(json.dumps({}))
    assert "does not name" in {own.id: own for own in claims.verdicts(load(folder))}["memory"].scope

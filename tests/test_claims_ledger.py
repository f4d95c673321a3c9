"""The ledger of claims as a whole: verdicts, scopes, holes, and files that cannot be used."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from pipelines.evidence.comparisons import GROUPS as COMPARED
from pipelines.evidence.comparisons import group
from report import claim_costs, claims, comparisons, page, style, tables
from report.results import ReportError, load
from tests import fake_results as fake
from tests import test_claims
from tests.test_claims import COLORA, write_costs, write_results

folder = test_claims.folder
results = test_claims.results
written = test_claims.written


def test_every_claim_has_a_verdict_and_a_scope(folder):
    write_costs(folder, (0.7, 0.69, 0.71, 0.9, 1, 0.99, 1.01, 8))
    found = {verdict.id: verdict for verdict in claims.verdicts(load(folder))}
    assert set(found) >= {
        "parameters", "accuracy-full", "accuracy-others", "auc-others", "auc-head-only", "epoch-time", "memory",
        "stability", "comparable-vit", "comparable-state-space", "comparable-kan", "inference",
    }  # fmt: skip
    for verdict in found.values():
        assert verdict.verdict in ("supported", "contradicted", "undecided")
        assert bool(verdict.takes) == (verdict.verdict == "undecided")
        assert all((verdict.claim, verdict.where, verdict.test, verdict.evidence, verdict.scope))
    assert found["parameters"].verdict == "supported"  # 2,540,292 of 15,583,812
    assert [found[name].verdict for name in ("epoch-time", "memory", "inference")] == ["supported"] * 3
    assert {found[name].scope for name in ("epoch-time", "memory", "inference")} == {"vgg16 on Some GPU"}


@pytest.mark.parametrize(
    ("source", "text"),
    [("phantom", "say nothing about OCT images"), ("folder", "1,000 images of a folder, not OCTMNIST"),
     ("medmnist", "octmnist; vgg16"), ("unknown", "data without a card")],
)  # fmt: skip
def test_verdicts_on_accuracy_hold_for_their_data_only(folder, source, text):
    (folder / "data" / "card.json").write_text(json.dumps({"settings": {"source": source}, "count": 1000}))
    found = load(folder)
    for verdict in claims.verdicts(found):
        if verdict.id.startswith(("accuracy", "auc", "comparable", "stability")):
            assert text in verdict.scope
    assert (claims.claims(found).text["Holds only for"].str.contains(text, regex=False)).sum() == 8


def test_methods_that_are_not_there(tmp_path, monkeypatch):
    found = load(write_results(tmp_path, monkeypatch, methods=["head-only", COLORA, "vim"], seeds=(0, 1)))
    verdicts = {verdict.id: verdict for verdict in claims.verdicts(found)}
    assert (
        verdicts["accuracy-full"].takes
        == verdicts["parameters"].takes
        == "a method of family full on vgg16 in the profile"
    )
    assert verdicts["stability"].takes == "a method of family full on vgg16 in the profile"
    assert verdicts["comparable-kan"].takes == "a method of group KAN in the profile"
    assert "a method of group ViT in the profile" in verdicts["auc-others"].takes
    assert "vim (state space" in verdicts["comparable-state-space"].evidence


def test_holes_say_which_run_to_train(tmp_path, monkeypatch):
    methods = ["full", "head-only", COLORA, "vit-lora", "kan-head"]
    skip = [("full", 0), ("full", 1), ("vit-lora", 0), ("vit-lora", 1), ("kan-head", 0), (COLORA, 1)]
    found = load(write_results(tmp_path, monkeypatch, methods=methods, skip=skip, seeds=(0, 1)))
    verdicts = {verdict.id: verdict for verdict in claims.verdicts(found)}
    for name in ("parameters", "accuracy-full", "stability"):
        assert verdicts[name].verdict == "undecided"
        assert verdicts[name].takes == "run python -m pipelines.train --method full --seed 0"
    assert verdicts["comparable-vit"].takes == "run python -m pipelines.train --method vit-lora --seed 0"
    # Both have a run, but of no common seed.
    assert verdicts["comparable-kan"].takes == f"run python -m pipelines.train --method {COLORA} --seed 1"
    assert verdicts["auc-head-only"].takes == "two seeds or more"


def test_no_colora_method(tmp_path, monkeypatch):
    found = load(write_results(tmp_path, monkeypatch, methods=["full", COLORA], skip=[(COLORA, 0)], seeds=(0,)))
    verdicts = claims.verdicts(found)
    assert {verdict.verdict for verdict in verdicts} == {"undecided"}
    assert {verdict.takes for verdict in verdicts} == {f"run python -m pipelines.train --method {COLORA} --seed 0"}
    only = replace(found, runs=found.runs[found.runs.method == "full"], methods=found.methods.loc[["full"]])
    assert {verdict.takes for verdict in claims.verdicts(only)} == {"a method of family colora in the profile"}


def test_results_summarised_before_there_were_such_comparisons(results):
    frame = results.comparisons[results.comparisons.against.isin(["full", "head-only"])]
    verdicts = {verdict.id: verdict for verdict in claims.verdicts(replace(results, comparisons=frame))}
    assert verdicts["comparable-vit"].takes == "run python -m pipelines.summarise"


def test_the_page_shows_claims_after_its_findings(results, tmp_path):
    written = tables.write_all(results, tmp_path)
    text = page.render(results, written, [])
    order = [text.index(part) for part in ("The highest mean test accuracy", "## Claims", "## The paper's own figures")]
    assert order == sorted(order) and order[-1] < text.index("## Accuracy and AUC")
    words = [verdict.verdict for verdict in claims.verdicts(results)]
    assert f"{words.count('supported')} supported, {words.count('contradicted')} contradicted" in text
    for name in ("claims", "audit"):
        source = (tmp_path / f"{name}.tex").read_text()
        assert source.isascii() and (floats := source.count(r"\begin{table*}")) == source.count(r"\end{table*}") > 0
        columns = source.count(r"\textwidth") / floats
        assert columns == len(written[name].text.columns) == len(written[name].widths)
        raw = pd.read_csv(tmp_path / f"{name}.csv")
        assert len(raw) == len(written[name].text)
    assert pd.read_csv(tmp_path / "claims.csv").verdict.tolist() == words


def broken(tmp_path, change):
    content = yaml.safe_load(claims.LEDGER.read_text())
    change(content)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


ERRORS = {
    "kind": (lambda c: c["claims"][1]["test"].update(kind="gian"),
             r"1.test \(accuracy-full\): unknown kind 'gian' \(did you mean 'gain'\?\); expected one of par"),
    "no kind": (lambda c: c["claims"][1]["test"].pop("kind"), r"\(accuracy-full\): missing key 'kind'"),
    "key of a test": (lambda c: c["claims"][2]["test"].update(sise=1),
                      r"\(accuracy-others\): unknown key 'sise' \(did you mean 'size'\?\)"),
    "key of a claim": (lambda c: c["claims"][2].update(wher=1), r"unknown key 'wher' \(did you mean 'where'\?\)"),
    "key of the ledger": (lambda c: c.update(audits=[]), r"audits: unknown key 'audits' \(did you mean 'audit'\?\)"),
    "missing": (lambda c: c["claims"][0].pop("claim"), r"claims.0.claim \(parameters\): missing key 'claim'"),
    "type": (lambda c: c["claims"][0]["test"].update(at_most="much"), r"at_most \(parameters\): .*found 'much'"),
    "against": (lambda c: c["claims"][1]["test"].update(over=["fulll"]), r"\(accuracy-full\): .*found 'fulll'"),
    "bounds": (lambda c: c["claims"][-1]["test"].update(at_most=1), r"\(inference\): expected one of at_most and"),
    "twice": (lambda c: c["claims"].append(c["claims"][0]), r"id parameters is there twice"),
    "check": (lambda c: c["audit"][0]["check"].update(kind="counts"),
              r"0.check \(Trained parameters, full fine-tuning\): unknown kind 'counts' \(did you mean 'count'\?\)"),
    "list": (lambda c: c.update(claims={}), r"claims: Input should be a valid list"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_a_ledger_that_cannot_be_used_is_told(tmp_path, name):
    change, message = ERRORS[name]
    with pytest.raises(ReportError, match=message) as caught:
        claims.ledger(broken(tmp_path, change))
    assert str(caught.value).startswith(str(tmp_path / "claims.yaml"))


@pytest.mark.parametrize("content", [None, "a: [", "", "3"])
def test_a_ledger_that_is_no_ledger(tmp_path, content):
    path = tmp_path / "claims.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ReportError, match="claims.yaml: "):
        claims.ledger(path)


def test_groups_are_those_of_the_figures():
    """The summary picks rivals by group without the report's module for looks; both must sort methods alike."""
    assert COMPARED == comparisons.GROUPS
    for method, (family, *_) in {**fake.METHODS, **fake.MORE}.items():
        backbone = fake.section(method).get("backbone", "vgg16")
        shown = style.group(family, backbone)
        assert group(family, backbone) == (shown if shown in COMPARED else None)
    assert claim_costs.COMMAND == "python -m pipelines.cost"

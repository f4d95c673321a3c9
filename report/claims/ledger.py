"""The ledger of the paper's claims: what claims.yaml states, judged by the results of one profile.

`report.claims.tests` has the kinds of test, `report.claims.audit` the checks of the paper's own figures. A verdict is
about one profile's results and says so: its scope.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import yaml
from pydantic import Field, ValidationError

from pipelines.files.errors import UserError
from pipelines.profile.base import Section, explain
from report.claims.audit import CHECKS, Result, Sources, sources
from report.claims.tests import WORDS, Cost, Elsewhere, Inference, Parameters, Test
from report.reading import Results
from report.text import DASH, Table

LEDGER = Path(__file__).with_name("claims.yaml")


@dataclass(frozen=True)
class Verdict:
    """claim, where, test: what is claimed, where, and how it is tested, in words. evidence: the numbers here. verdict:
    one of `tests.WORDS`. scope: the only data, network or machine that it holds for. takes: of 'inconclusive' what
    would decide it, of 'not tested' why and what to run; else empty.
    """

    id: str
    claim: str
    where: str
    test: str
    evidence: str
    verdict: str
    scope: str
    takes: str


class Claim(Section):
    id: str = Field(pattern=r"^[a-z0-9-]+$")
    claim: str
    where: str
    test: Test


class Figure(Section):
    """figure: what is checked, in our words. stated: what the paper says, where that is not a figure of paper.csv.
    check: its kind, one of `audit.CHECKS`, and its arguments.
    """

    figure: str
    stated: str | None = None
    check: dict

    def result(self, given: Sources) -> Result:
        arguments = {key: value for key, value in self.check.items() if key != "kind"}
        found = CHECKS[self.check["kind"]](given, **arguments)
        return found._replace(stated=self.stated or found.stated)


class Ledger(Section):
    """The content of claims.yaml; `declared` is read by `pipelines.evidence.declared`."""

    declared: dict
    claims: list[Claim] = Field(min_length=1)
    audit: list[Figure] = Field(min_length=1)


def method_of_claims() -> str:
    """The method that every claim is about, declared before the runs."""
    return str(ledger(LEDGER).declared["method"])


def verdicts(results: Results) -> list[Verdict]:
    """The verdict on every claim, in the ledger's order.

    Raises:
        UserError: claims.yaml, or a result file that a test needs, cannot be used.
    """
    method = method_of_claims()
    found = []
    for claim in ledger(LEDGER).claims:
        finding, scope = claim.test.judge(results, method), _scope(results, method, claim.test)
        found.append(Verdict(
            id=claim.id, claim=claim.claim, where=claim.where, test=claim.test.words(), scope=scope, **vars(finding)
        ))  # fmt: skip
    return found


def _scope(results: Results, method: str, test) -> str:
    """What a verdict is about: a network for counts, networks and a machine for costs, else data and a network."""
    backbone = results.methods.backbone.get(method, "no network")
    if isinstance(test, Parameters):
        return f"the parameters of {backbone}"
    if isinstance(test, Inference | Cost):
        networks = ", ".join(results.cost[results.cost.method == method].backbone.unique())
        if not networks:
            return "nothing yet"
        return f"{networks} on {results.cost_machine}" if isinstance(test, Cost) else f"the operators of {networks}"
    if isinstance(test, Elsewhere):
        return "these data sets"
    data = {
        "phantom": "synthetic phantom scans, which say nothing about OCT images",
        "folder": f"{results.card.get('count', 0):,} images of a folder, not OCTMNIST",
        "unknown": "data without a card",
    }.get(results.source, results.dataset)
    return f"{backbone} on {data}"


def tally(found: list[Verdict]) -> str:
    """How many claims got which verdict, in a sentence."""
    words = [verdict.verdict for verdict in found]
    counts = ", ".join(f"{words.count(word)} {word}" for word in WORDS)
    return f"{len(words)} claims of the paper by the results of this profile alone: {counts}"


def claims(results: Results, found: list[Verdict]) -> Table:
    """Every claim with its evidence and verdict."""
    raw = pd.DataFrame(found)
    text = pd.DataFrame({
        "Claim": raw.claim, "Verdict": raw.verdict, "Evidence here": raw.evidence,
        "What would decide it": raw.takes.where(raw.takes != "", DASH), "Said in": raw["where"],
    })  # fmt: skip
    scopes = "; ".join(dict.fromkeys(raw.scope[raw.verdict != "not tested"])) or "nothing yet"
    note = (
        "Claims of arXiv:2505.18315 in this project's words. Method, comparators, sizes and thresholds stand in "
        f"claims.yaml and were declared before the runs: the method is {method_of_claims()}. Intervals are those that "
        "the verdicts rest on, Holm-adjusted over the declared contrasts. Inconclusive: neither is shown, not "
        "that the claim is wrong. Comparable and about as accurate are tested as less than the margin behind. Costs "
        "count as measured by pipelines.cost, never as epoch times of runs. "
        f"Verdicts are about: {scopes}. The CSV states the test and the scope of each."
    )
    widths = (0.24, 0.11, 0.28, 0.19, 0.15)
    return Table("claims", f"Claims of the paper: {results.label}", note, raw, text, left=5, widths=widths)


def audited(results: Results) -> Table:
    """The paper's own figures beside what they should be."""
    given = sources(results.paper)
    raw = pd.DataFrame([{"figure": figure.figure, **figure.result(given)._asdict()} for figure in ledger(LEDGER).audit])
    note = (
        "Arithmetic on figures of the paper and its revised manuscript, and exact counts of VGG16 with the paper's "
        "head: nothing here was trained. M: millions of parameters, rounded to two decimals. sd: standard deviation. "
        "That a value lies at most sd times the root of n \N{MINUS SIGN} 1 from the mean of n values (Samuelson 1968) "
        "gives the number of runs, if all three figures are of the same ones; their rounding is taken in the paper's "
        "favour."
    )
    text = raw.rename(columns=str.capitalize)
    widths = (0.27, 0.15, 0.38, 0.17)
    return Table("audit", "The paper's own figures, recomputed", note, raw, text, left=4, widths=widths)


@cache
def ledger(path: Path) -> Ledger:
    """Read and check a ledger.

    Raises:
        UserError: it cannot be read, or a kind, key or value is unknown, missing or mistyped.
    """
    try:
        found = Ledger.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from None
    except ValidationError as error:
        raise UserError(explain(error, path, Ledger)) from None
    ids = [claim.id for claim in found.claims]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise UserError(f"{path}: claims: id {', '.join(twice)} is there twice; each names one claim")
    return found

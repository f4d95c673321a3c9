"""The ledger of the paper's claims: each with how it is tested, the evidence here, and the verdict, all computed.

claims.yaml holds the claims and the thresholds; `report.claim_tests` has the kinds of test, `report.audit` the checks
of the paper's own figures. A verdict is about one profile's results and says so: its scope.
"""

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import pandas as pd
import yaml
from pydantic import Field, ValidationError

from pipelines.profile import Section
from report import claim_costs
from report.audit import Check, Figure, sources
from report.claim_tests import UNDECIDED, WORDS, Cost, Finding, Parameters, Test, train
from report.results import ReportError, Results
from report.tables import DASH, Table, comparability

LEDGER = Path(__file__).parent / "claims" / "claims.yaml"


@dataclass(frozen=True)
class Verdict:
    """claim, where, test: what is claimed, where, and how it is tested, in words. evidence: the numbers here. verdict:
    'supported', 'contradicted' or 'undecided'. scope: the only data, network or machine that it holds for. takes: what
    would decide it; empty where it is decided.
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


class Ledger(Section):
    """The content of claims.yaml."""

    declared: dict  # checked by pipelines.evidence.declared
    claims: list[Claim] = Field(min_length=1)
    audit: list[Figure] = Field(min_length=1)


def verdicts(results: Results) -> list[Verdict]:
    """The verdict on every claim, in the ledger's order.

    Raises:
        ReportError: claims.yaml, or a result file that a test needs, cannot be used.
    """
    method = _chosen(results)
    return [_verdict(results, method, claim) for claim in ledger(LEDGER).claims]


def _verdict(results: Results, method: str | None, claim: Claim) -> Verdict:
    found = (
        claim.test.judge(results, method)
        if method
        else Finding("no result of a CoLoRA method", UNDECIDED, _colora(results))
    )
    return Verdict(
        id=claim.id, claim=claim.claim, where=claim.where, test=claim.test.words(), evidence=found.evidence,
        verdict=found.verdict, scope=_scope(results, method, claim.test), takes=found.takes,
    )  # fmt: skip


def _chosen(results: Results) -> str | None:
    from report.page import chosen_colora  # the page shows these tables

    return chosen_colora(results)


def _colora(results: Results) -> str:
    holes = results.holes[results.holes.family == "colora"]
    return train(holes) if len(holes) else "a method of family colora in the profile"


def _scope(results: Results, method: str | None, test) -> str:
    """What a verdict is about: a network for counts, networks and a machine for costs, else data and a network."""
    backbone = results.methods.backbone[method] if method else "no network"
    if isinstance(test, Parameters):
        return str(backbone)
    if isinstance(test, Cost):
        rows = claim_costs.ratios(results, method, test.ratio, test.tolerance) if method else None
        if rows is None or rows.empty:
            return "nothing yet"
        return f"{', '.join(dict.fromkeys(rows.backbone))} on {claim_costs.machine(results)}"
    data = {
        "phantom": "synthetic phantom scans, which say nothing about OCT images",
        "folder": f"{results.card.get('count', 0):,} images of a folder, not OCTMNIST",
        "unknown": "data without a card",
    }.get(results.source, results.dataset)
    return f"{data}; {backbone}"


def tally(results: Results) -> str:
    """How many claims are supported, contradicted, undecided here, in a sentence."""
    words = [verdict.verdict for verdict in verdicts(results)]
    counts = ", ".join(f"{words.count(word)} {word}" for word in WORDS)
    return f"Of {len(words)} claims of the paper, by the results of this profile alone: {counts}."


def claims(results: Results) -> Table:
    """Every claim with its evidence and verdict."""
    found = verdicts(results)
    raw = pd.DataFrame([vars(verdict) for verdict in found])
    text = pd.DataFrame({
        "Claim": raw.claim, "Verdict": raw.verdict, "Evidence here": raw.evidence, "Test": raw.test,
        "Said in": raw["where"], "Holds only for": raw.scope,
        "What would decide it": raw.takes.where(raw.takes != "", DASH),
    })  # fmt: skip
    method = _chosen(results)
    who = (
        f"The CoLoRA method is {method}, of highest validation accuracy on its backbone."
        if method
        else "No CoLoRA method has a result."
    )
    note = (
        "Claims of arXiv:2505.18315 in this project's words. Verdicts are computed from the results of this profile "
        f"and hold for what stands beside them only. {who} Full fine-tuning and transfer are those on its backbone, "
        "the other models each group's method of highest validation accuracy; where one is from scratch its network and "
        "weights differ as well as the method. Differences are told with the interval of one comparison at a time "
        "and Holm's p. Undecided means that neither is shown, not that the claim is wrong. Costs count only as "
        f"measured by pipelines.cost, never as epoch times of runs. {comparability(results)}"
    )
    widths = (0.13, 0.09, 0.2, 0.13, 0.08, 0.12, 0.11)
    return Table("claims", f"Claims of the paper: {results.label}", note, raw, text, left=7, widths=widths)


def audited(results: Results) -> Table:
    """The paper's own figures beside what they should be."""
    given = sources(results.paper)
    figures = ledger(LEDGER).audit
    raw = pd.DataFrame([{"figure": figure.figure, **vars(figure.result(given))} for figure in figures])
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


TABLES = (claims, audited)


@cache
def ledger(path: Path) -> Ledger:
    """Read and check a ledger.

    Raises:
        ReportError: it cannot be read, or a kind, key or value is unknown, missing or mistyped.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ReportError(f"{path}: not readable as YAML ({error})") from None
    try:
        found = Ledger.model_validate(content)
    except ValidationError as error:
        raise ReportError(f"{path}: {'; '.join(_told(e, content) for e in error.errors())}") from None
    ids = [claim.id for claim in found.claims]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ReportError(f"{path}: claims: id {', '.join(twice)} is there twice; each names one claim")
    return found


def _told(error: dict, content) -> str:
    """One of pydantic's errors in words: where, in which claim, what was found, what was expected."""
    loc = error["loc"]
    where = ".".join(map(str, loc)) or "top level"
    if len(loc) > 1 and isinstance(loc[1], int) and isinstance(entry := content[loc[0]][loc[1]], dict):
        where += f" ({entry.get('id') or entry.get('figure')})"
    if error["type"] == "union_tag_invalid":
        found, kinds = error["ctx"]["tag"], [kind for kind in KINDS if repr(kind) in error["ctx"]["expected_tags"]]
        return f"{where}: unknown kind {found!r}{_near(found, kinds)}; expected one of {', '.join(kinds)}"
    if error["type"] == "union_tag_not_found":
        return f"{where}: missing key 'kind'"
    if error["type"] == "missing":
        return f"{where}: missing key {loc[-1]!r}"
    if error["type"] == "extra_forbidden":
        section = KINDS.get(loc[-2]) if len(loc) > 1 else Ledger
        section = section or {"claims": Claim, "audit": Figure}[loc[0]]
        return f"{where}: unknown key {loc[-1]!r}{_near(loc[-1], section.model_fields)}"
    found = "" if error["type"] == "value_error" else f", found {error['input']!r}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}{found}"


def _near(name, names) -> str:
    close = difflib.get_close_matches(str(name), list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


KINDS = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind
    for union in (Test, Check)
    for kind in get_args(get_args(union)[0])
}

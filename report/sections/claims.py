"""The paper's claims with their verdicts on these results."""

from report import claims
from report.reading import Results
from report.sections import Section

GROUP = "Evidence"
ORDER = 10


def needs(results: Results) -> str | None:
    return "the report is not about the paper" if results.paper.empty else None


def section(results: Results) -> Section:
    found = claims.verdicts(results)
    return Section("claims", GROUP, f"{claims.tally(found)}.", "", tables=[claims.claims(results, found)])

"""The paper's claims with their verdicts on these results."""

from report import claims
from report.reading import Results
from report.sections import Section

GROUP, ORDER = "Evidence", 10


def section(results: Results) -> Section | None:
    if results.paper.empty:  # the report is not about the paper
        return None
    found = claims.verdicts(results)
    return Section(f"{claims.tally(found)}.", tables=[claims.claims(results, found)])

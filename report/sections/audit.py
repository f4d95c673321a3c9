"""The paper's own figures, checked by arithmetic."""

from report import claims
from report.reading import Results
from report.sections import Section

GROUP, ORDER = "Evidence", 90


def section(results: Results) -> Section | None:
    if results.paper.empty:  # the report is not about the paper
        return None
    table = claims.audited(results)
    agree = (table.raw.agrees == "yes").sum()
    title = f"{agree} of {len(table.raw)} of the paper's own figures that can be recomputed agree."
    return Section(title, tables=[table], folded=True)

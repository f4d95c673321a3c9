"""Runs without a result: holes are shown, not skipped."""

from report.reading import Results
from report.sections import Section, Table
from report.text import DASH, few

GROUP, ORDER = "Data and methods", 90


def section(results: Results) -> Section | None:
    holes = results.holes
    if holes.empty:
        return None
    raw = holes[["method", "seed", "status", "failure"]]
    title = f"{len(holes)} of {len(results.runs)} runs have no result: {few(list(dict.fromkeys(holes.method)))}."
    text = raw.fillna(DASH).astype(str).rename(columns=str.capitalize)
    note = "A method with other runs has its numbers from those; one without any is in no table of results."
    made = Table("missing", f"Runs without a result (profile {results.profile})", note, raw, text, left=4)
    return Section(title, tables=[made], folded=True)

"""Everything that a profile's report consists of, from its result files alone."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pipelines.files import fonts
from report import drawing
from report import sections as rooms
from report.claims import verdicts
from report.pages import html, markdown, model_card
from report.pages.first_screen import answer
from report.pages.latex import latex
from report.reading import Results, load
from report.sections import Section

OPEN = 3  # figures of a group that are shown without a click


def read(directory: Path, paper: bool | None = None) -> Results:
    """The results of a profile; without the paper's figures where the report is not about its claims.

    Args:
        paper: whether it is; by default where the data set is one of the paper's.

    Raises:
        UserError: a result file is missing or not as expected.
    """
    results = load(directory)
    if paper is None:
        paper = results.dataset in set(results.paper.dataset)
    return results if paper else replace(results, paper=results.paper.iloc[:0])


def build(results: Results, out: Path) -> Path:
    """Write README.md with its pictures, index.html, figures in all formats, tables, model cards; returns index.html.

    What an earlier report left in these folders is removed.

    Raises:
        UserError: a result file is missing or not as expected.
    """
    sections = folded(rooms.build(results))
    found = answer(results, verdicts(results) if len(results.paper) else [])
    for folder in ("figures", "tables", "pictures", "models"):
        shutil.rmtree(out / folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    for section in sections:
        if section.figure:
            drawing.save(section.figure, out / "figures" / section.name)
    if told := fonts.warning([*results.methods.index, *results.confusion["true"].astype(str).unique()]):
        print(f"warning: {told}", flush=True)
    (out / "tables").mkdir()
    for table in [table for section in sections for table in section.tables]:
        (out / "tables" / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
        (out / "tables" / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")
    for name in markdown.shown(sections):
        (out / markdown.PICTURES).mkdir(exist_ok=True)
        shutil.copyfile(out / "figures" / f"{name}.png", out / markdown.PICTURES / f"{name}.png")
    (out / "README.md").write_text(markdown.render(results, found, sections), encoding="utf-8")
    page = out / "index.html"
    page.write_text(html.render(results, found, sections, out / "figures"), encoding="utf-8")
    model_card.write_all(results, Path("models") / results.profile, out / "models")
    return page


def folded(sections: list[Section]) -> list[Section]:
    """The sections, all but the first `OPEN` figures of each group folded, so that a page stays within 14 screens."""
    seen, found = Counter(), []
    for section in sections:
        seen[section.group] += section.figure is not None and not section.folded
        found.append(replace(section, folded=True) if section.figure and seen[section.group] > OPEN else section)
    return found

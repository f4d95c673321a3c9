"""The report as README.md, for a repository's page: the first screen, then the groups, tables folded."""

from pipelines.files.markdown import code, plain
from report.pages import origin
from report.pages.first_screen import PAPER, Answer
from report.reading import Results
from report.sections import GROUPS, Section
from report.text import Table, markdown

FIRST = "forest"  # the section whose figure stands on the first screen
PICTURES = "pictures"  # folder of the PNGs that it shows, which are in Git


def render(results: Results, answer: Answer, sections: list[Section]) -> str:
    """README.md; of folded sections the tables alone are shown."""
    parts = [f"# Report: profile {code(results.profile)}", f"**{plain(answer.sentence)}**"]
    parts += [_figure(section) for section in sections if section.name == FIRST]
    parts.append("\n".join(f"- {tile.label}: **{plain(tile.value)}** ({plain(tile.detail)})" for tile in answer.tiles))
    if answer.again:
        parts.append(f"**The same method again:** {plain(answer.again)}.")
    if answer.not_run:
        parts.append(f"**Not run:** {plain('; '.join(answer.not_run))}.")
    about = f"Runs of {answer.when} on {plain(answer.machine)}."
    if len(results.paper):
        about += f" The paper: [arXiv:{PAPER.rpartition('/')[2]}]({PAPER})."
    parts.append(
        f"{about} `make report` builds the page with filters and learning curves "
        f"(`report/{results.profile}/index.html`), figures in all formats, tables as CSV and LaTeX, from results alone."
    )
    for group in GROUPS:
        own = [section for section in sections if section.group == group]
        if own or group == GROUPS[-1]:
            parts.append(f"## {group}")
        for section in own:
            parts.append(f"### {plain(section.title)}")
            if section.name == FIRST:
                parts += [_table(table) for table in section.tables]
                continue
            if section.figure is not None and not section.folded:
                parts.append(_figure(section))
            elif section.caption and section.figure is None:
                parts.append(f"*{plain(section.caption)}*")
            parts += [_table(table) for table in section.tables]
    parts += ["### Data, weights, versions and machines", origin.about(results), origin.provenance(results)]
    if card := origin.data_card(results):
        parts.append(f"<details><summary>Data card</summary>\n\n{card}\n\n</details>")
    return "\n\n".join(part for part in parts if part) + "\n"


def shown(sections: list[Section]) -> list[str]:
    """The sections whose picture README.md shows."""
    return [section.name for section in sections if section.figure is not None and not section.folded]


def _figure(section: Section) -> str:
    alt = plain(section.alt).replace("[", "(").replace("]", ")")
    return f"![{alt}]({PICTURES}/{section.name}.png)\n\n*{plain(section.caption)}*"


def _table(table: Table) -> str:
    return f"<details><summary>{plain(table.title)}</summary>\n\n{markdown(table)}\n{plain(table.note)}\n\n</details>"

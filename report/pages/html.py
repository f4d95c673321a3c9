"""The report as one HTML file that needs nothing else: no network, no file beside it.

`web/` holds the template, the style and the scripts, `assets/` the charting library. Whatever comes from data (names of
methods and classes, failures) is escaped: by Jinja's autoescape, by markdown-it without raw HTML, or as JSON. The
page's content security policy lets only style and scripts written here run, known by their hashes, and no request out.
"""

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import quote

import jinja2
import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from report.pages import charts, origin
from report.pages.cells import cell, kind
from report.pages.first_screen import PAPER, Answer
from report.reading import Results
from report.sections import GROUPS, Section
from report.text import MARK, Table

WEB = Path(__file__).with_name("web")
ASSETS = Path(__file__).with_name("assets")
OWN = {"forest", "accuracy"}  # sections whose figure the page draws itself, to be sorted, filtered and read on a phone


def render(results: Results, answer: Answer, sections: list[Section], figures: Path) -> str:
    """The page's source; figures: the folder of their files. The same results give the same bytes."""
    methods = results.methods.index
    css = [_read(ASSETS / "uPlot.min.css"), _read(WEB / "page.css"), _colors(results), _widths(sections)]
    style = "\n".join(css)
    theme = _read(WEB / "theme.js")
    scripts = [_read(ASSETS / "uPlot.iife.min.js"), _read(WEB / "page.js")]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["code"] = _code
    first = results.runs.method.reset_index(drop=True).drop_duplicates()
    return environment.get_template("index.html.j2").render(
        profile=results.profile,
        policy=_policy([theme, *scripts], style),
        style=Markup(style),
        theme=Markup(theme),
        scripts=list(map(Markup, scripts)),
        paper=PAPER if len(results.paper) else None,
        answer=answer,
        forest=charts.forest(results),
        methods=charts.methods(results),
        groups=_groups(sections, methods, figures),
        curves=charts.curves(results),
        origin=_origin(results),
        records=_table(origin.records(results), methods),
        first_record={place: methods.get_loc(name) for place, name in first.items()},
        licence=_read(ASSETS / "uPlot.LICENSE"),
    )


def _groups(sections: list[Section], methods: pd.Index, figures: Path) -> list[dict]:
    """The groups with their parts, as the contents list them: id, label, section or None."""
    parts = {name: [] for name in GROUPS}
    parts[GROUPS[0]].append({"id": "table-methods", "label": "All methods", "section": None})
    for own in sections:
        parts[own.group].append({
            "id": own.name, "label": own.name.replace("_", " ").capitalize(), "section": own,
            "folded": own.folded or own.name in OWN, "tables": [_table(table, methods) for table in own.tables],
            "picture": _inline(own, figures / own.name) if own.figure and own.name not in OWN else None,
        })  # fmt: skip
    parts[GROUPS[-1]].append({"id": "records", "label": "Runs", "section": None})
    parts[GROUPS[-1]].append({"id": "origin", "label": "Data and machines", "section": None})
    return [
        {"id": f"group-{name.split()[0].lower()}", "name": name, "parts": own} for name, own in parts.items() if own
    ]


def _inline(section: Section, stem: Path) -> dict:
    """A figure once, as a data URL: its SVG, or its small PNG where that is smaller."""
    svg, png = lean_svg(_read(stem.with_suffix(".svg"))), stem.with_suffix(".png").read_bytes()
    vector = len(svg) <= len(png)
    width, height = (round(96 * side) for side in section.figure.get_size_inches())
    return {
        "src": _data_url("image/svg+xml", svg.encode()) if vector else _data_url("image/png", png),
        "file": f"{section.name}.{'svg' if vector else 'png'}",
        "width": width,
        "height": height,
    }


def lean_svg(svg: str) -> str:
    """A figure of matplotlib's without comments, metadata and indentation, coordinates to a hundredth of a point."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL)

    def rounded(match: re.Match) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), match[0])

    svg = re.sub(r' (?:d|x|y|points)="[^"]*"|translate\([^)]*\)', rounded, svg)
    return re.sub(r"\s+", " ", svg).replace("> <", "><").strip()


def _table(table: Table, methods: pd.Index) -> dict:
    """A table for the template: columns with their kinds, rows with the method that they are about."""
    columns = list(table.text.columns)
    about = [str(row[0]).removesuffix(f" {MARK}").split(" (")[0] for row in table.text.itertuples(index=False)]
    kinds = [kind(own) for _, own in table.text.items()]
    kinds = ["text" if place < table.left and own == "number" else own for place, own in enumerate(kinds)]
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "sentences": bool(table.widths),
        "heads": [{"text": str(name), "type": own} for name, own in zip(columns, kinds, strict=True)],
        "rows": [
            {"method": methods.get_loc(name) if name in methods else None,
             "cells": [cell(str(value), own) for value, own in zip(row, kinds, strict=True)]}
            for name, row in zip(about, table.text.itertuples(index=False), strict=True)
        ],
        "csv": f"data:text/csv;charset=utf-8,{quote(table.csv())}",
    }  # fmt: skip


def _colors(results: Results) -> str:
    """A class for each method's colour, in light and in dark."""
    return "\n".join(
        f".c{number}{{color:light-dark({row.color},{charts.dark(row.color)})}}"
        for number, row in enumerate(results.methods.itertuples())
    )


def _widths(sections: list[Section]) -> str:
    """Column widths of tables of sentences."""
    return "\n".join(
        f"#table-{table.name} th:nth-child({place}){{width:{100 * width / sum(table.widths):.0f}%}}"
        for section in sections
        for table in section.tables
        for place, width in enumerate(table.widths, 1)
    )


def _code(text: str) -> Markup:
    """Plain text with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _origin(results: Results) -> Markup:
    """Markdown of the provenance and the data card as HTML; raw HTML stays text, the card's images are put inside."""
    parts = [origin.about(results), origin.provenance(results)]
    if card := origin.data_card(results):
        parts.append(f"#### Data card\n\n{card}")
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse("\n\n".join(parts))
    heading = "Details"
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[place + 1].content
        elif token.type == "table_open":
            token.meta["caption"] = heading
        elif token.type in ("th_open", "td_open") and "style" in token.attrs:
            # The policy forbids style attributes; all that markdown-it sets is the alignment.
            right = str(token.attrs.pop("style")).endswith("right")
            token.attrs.update({"class": "number"} if right else {})
        if token.type == "th_open":
            token.attrs["scope"] = "col"
        for child in token.children or []:
            if child.type == "image":
                child.attrs["src"] = _inside(str(child.attrs["src"]), results)

    def table_open(_, tokens, place, *__):
        caption = escape(tokens[place].meta["caption"])
        region = f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table>'
        return f'{region}\n<caption class="hidden-text">{caption}</caption>\n'

    markdown.add_render_rule("table_open", table_open)
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))


def _inside(source: str, results: Results) -> str:
    """A picture of the data card as a data URL; nothing for one that is not in the card's own folder."""
    folder = (results.directory / "data").resolve()
    path = (folder / source.removeprefix(f"../../results/{results.profile}/data/")).resolve()
    kinds = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
    if path.parent != folder or path.suffix not in kinds or not path.is_file():
        return "data:,"
    return _data_url(kinds[path.suffix], path.read_bytes())


def _data_url(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _policy(scripts: list[str], style: str) -> str:
    """Nothing is loaded but images from data URLs; nothing runs but these."""

    def known(code: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {' '.join(known(code) for code in scripts)}; style-src {known(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )

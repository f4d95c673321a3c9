"""The report as one HTML file that needs nothing else: no network, no file beside it.

`web/` holds the template, the style and the scripts, `assets/` the charting library. Whatever comes from data (names of
methods and classes, failures) is escaped: by Jinja's autoescape, by markdown-it without raw HTML, or as JSON. The page's
content security policy lets only the style and scripts written here run, known by their hashes, and no request out.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from report import claims, overview, page
from report.results import ReportError, Results
from report.tables import DASH, Table

WEB = Path(__file__).with_name("web")
ASSETS = Path(__file__).with_name("assets")
PHOTOS = {"gradcam"}  # figures that stay as they are on a dark page, where others are turned light on dark
AFTER = {"scores": ["class_scores"]}  # tables that the Markdown page only links to

ALT = {
    "accuracy": "Dot plot with a row a method: test accuracy and AUC of every seed, their mean and 95 % interval.",
    "label_efficiency": "Two line charts with a line a method: accuracy and AUC against the patients trained on.",
    "critical_difference": "Mean ranks of the methods on a line; bars join methods that the Nemenyi test cannot tell apart.",
    "parameters": "Scatter plot of test accuracy against trained parameters on a log scale, a point a method.",
    "flops": "Scatter plot of test accuracy against forward FLOPs on a log scale, a point a method.",
    "learning_curves": "Small panels, one a method: validation accuracy by epoch, mean and range over seeds.",
    "stability": "Dot plots with a row a method: measures of how steady training is, with intervals over seeds.",
    "reliability": "Small panels, one a method: accuracy against stated confidence, and perfect calibration.",
    "cost_ratios": "Dot plots with a row a method or peer: time and peak memory of a step relative to full fine-tuning.",
    "cost_shares": "Stacked bars, one a method or peer: kinds of operators that the time of a training step goes to.",
    "cost_growth": "Line plots on log scales: time and peak memory of a step by batch size, image size and rank.",
    "cost": "Bar chart: seconds of a training epoch, a bar a method, a dot a seed.",
    "confusion": "Small panels, one a method: predicted class by true class, in per cent of the true class.",
    "robustness": "Small panels, one a kind of corruption: accuracy by severity, a line a method.",
    "gradcam": "Grid of scans, a row an image and a column a method, each under a heat map of where the network looked.",
    "beside_paper": "Dot plot with a row a method: the accuracy measured here and those that the paper states.",
}  # fmt: skip


class Cell(NamedTuple):
    """text: as shown. sort: its number, as JavaScript reads it. missing: a hole. tone: a verdict's colour."""

    text: str
    sort: str | None
    missing: bool
    tone: str | None


def write(results: Results, written: dict[str, Table], drawn: list[str], out: Path) -> Path:
    """Write out/index.html from the results and the files already in out/tables and out/figures; returns its path."""
    path = out / "index.html"
    path.write_text(render(results, written, drawn, out), encoding="utf-8")
    return path


def render(results: Results, written: dict[str, Table], drawn: list[str], out: Path) -> str:
    """The page's source. The same results give the same bytes."""
    records = overview.records(results)
    curves = overview.curves(results)
    style = "\n".join([_read(ASSETS / "uPlot.min.css"), _read(WEB / "page.css"), _colors(results), _widths(written)])
    theme = _read(WEB / "theme.js")
    scripts = [_read(ASSETS / "uPlot.iife.min.js"), _read(WEB / "page.js")]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["code"] = _code
    return environment.get_template("index.html.j2").render(
        profile=results.profile,
        policy=_policy([theme, *scripts], style),
        style=_raw(style),
        theme=_raw(theme),
        scripts=[_raw(script) for script in scripts],
        headline=overview.headline(results),
        tiles=overview.tiles(results),
        chosen=page.chosen_colora(results),
        about=_markdown(page.about_data(results)),
        findings=_markdown("\n\n".join(page.findings(results))),
        tally=claims.tally(results) if "claims" in written else None,
        holes=_table(written["holes"], out) if "holes" in written else None,
        cells=(len(results.runs), len(results.holes)),
        glance=overview.glance(results),
        sections=_sections(results, written, drawn, out),
        curves=curves,
        card=_markdown("\n\n".join(page.data_card(results)[1:]), results),
        provenance=_markdown(page.provenance(results)),
        records=_table(records, out),
        first_record=_first_record(results),
        licence=_read(ASSETS / "uPlot.LICENSE"),
    )


def _sections(results: Results, written: dict[str, Table], drawn: list[str], out: Path) -> list[dict]:
    """The sections of the Markdown page, in its order; a table that has no place in it ends the list."""
    found, placed = [], {"holes"}
    for name, title in page.TITLES.items():
        names = [t for t in (*page.BELOW.get(name, []), *AFTER.get(name, [])) if t in written and t not in placed]
        placed.update(names)
        if name in drawn or names:
            figure = _figure(results, name, title, out) if name in drawn else None
            found.append({
                "name": name, "title": title, "figure": figure, "tables": [_table(written[t], out) for t in names],
                "intro": claims.tally(results) if name == "claims" else "",
            })  # fmt: skip
    rest = [_table(table, out) for name, table in written.items() if name not in placed]
    if rest:
        found.append({"name": "more", "title": "More tables", "figure": None, "tables": rest, "intro": ""})
    return found


def _figure(results: Results, name: str, title: str, out: Path) -> dict:
    """A drawn figure as a data URL: its SVG, made lean, or its PNG where that is smaller, as with photos."""
    svg = lean_svg(_read(out / "figures" / f"{name}.svg")).encode()
    png = (out / "figures" / f"{name}.png").read_bytes()
    size = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if size is None:
        raise ReportError(f"{out / 'figures' / name}.svg: no viewBox found, so no whole figure; draw the report again")
    width, height = map(float, size.groups())
    vector = len(svg) <= len(png)
    return {
        "src": _data_url("image/svg+xml" if vector else "image/png", svg if vector else png),
        "file": f"{name}.{'svg' if vector else 'png'}",
        "drawing": name not in PHOTOS,
        "width": round(width * 4 / 3),  # points to CSS pixels
        "height": round(height * 4 / 3),
        "alt": ALT.get(name, f"{title}: {results.label}."),
        "caption": page.caption(results, name),
    }


def lean_svg(svg: str) -> str:
    """A figure of matplotlib's without comments, metadata and indentation, coordinates to a hundredth of a point."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL)

    def rounded(match: re.Match) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), match[0])

    svg = re.sub(r' (?:d|x|y|points)="[^"]*"|translate\([^)]*\)', rounded, svg)
    return re.sub(r"\s+", " ", svg).replace("> <", "><").strip()


def _table(table: Table, out: Path) -> dict:
    """A table for the template: typed columns, and its files as data URLs."""
    numeric = [place >= table.left and _is_numeric(table.text.iloc[:, place]) for place in range(table.text.shape[1])]
    folder = out / "tables"
    csv = folder / f"{table.name}.csv"
    files = {"csv": _read(csv) if csv.is_file() else table.raw.to_csv(index=False)}
    if (tex := folder / f"{table.name}.tex").is_file():
        files["tex"] = _read(tex)
    media = {"csv": "text/csv", "tex": "application/x-tex"}
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "sentences": bool(table.widths),
        "heads": list(zip(map(str, table.text.columns), numeric, strict=True)),
        "rows": [
            [_cell(str(value), number) for value, number in zip(row, numeric, strict=True)]
            for row in table.text.itertuples(index=False)
        ],
        "files": [
            {"name": f"{table.name}.{suffix}", "kind": {"csv": "CSV", "tex": "LaTeX"}[suffix],
             "href": f"data:{media[suffix]};charset=utf-8,{quote(content)}"}
            for suffix, content in files.items()
        ],
    }  # fmt: skip


def _cell(text: str, numeric: bool) -> Cell:
    missing = is_missing(text)
    sort = str(sort_value(text)).replace("inf", "Infinity") if numeric and not missing else None
    return Cell(text, sort, missing, overview.TONES.get(text))


def _is_numeric(column) -> bool:
    values = [sort_value(str(text)) for text in column if not is_missing(str(text))]
    return bool(values) and None not in values


def is_missing(text: str) -> bool:
    return text.strip() in ("", DASH)


_NUMBER = re.compile(r"([<\[]?)([+\-\N{MINUS SIGN}]?)([\d,]*\.?\d+(?:e[+-]?\d+)?)\s?([TGMk]?)(?=$|[\s,\]/%×])")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def sort_value(text: str) -> float | None:
    """The number that a cell shows first, by which its column sorts; None where it does not start with one.

    Read from the text, so that the order is that of what is seen: '0.975 ± 0.010', '[0.959, 0.985]', '1,583,620',
    '1.19G', '4 of 5', '\N{MINUS SIGN}0.048', '\N{INFINITY}', and '<0.001', which comes before 0.001.
    """
    text = text.strip()
    if text.lstrip("+\N{MINUS SIGN}-").startswith("\N{INFINITY}"):
        return float("-inf") if text[0] in "-\N{MINUS SIGN}" else float("inf")
    match = _NUMBER.match(text)
    if not match:
        return None
    start, sign, digits, unit = match.groups()
    value = float(digits.replace(",", "")) * _UNITS[unit] * (-1 if sign in ("-", "\N{MINUS SIGN}") else 1)
    return value / 2 if start == "<" else value


def _first_record(results: Results) -> dict[int, int]:
    """The row of the records table where each row that begins a method's cells stands: row number to method number."""
    methods = {method: number for number, method in enumerate(results.methods.index)}
    first = results.runs.reset_index(drop=True).drop_duplicates("method").method
    return {row: methods[method] for row, method in first.items()}


def _colors(results: Results) -> str:
    """A class for each method's colour, in light and in dark."""
    return "\n".join(
        f".c{number}{{color:light-dark({row.color},{overview.dark(row.color)})}}"
        for number, (_, row) in enumerate(results.methods.iterrows())
    )


def _widths(written: dict[str, Table]) -> str:
    """Column widths of tables of sentences."""
    return "\n".join(
        f"#table-{name} th:nth-child({place}){{width:{100 * width / sum(table.widths):.0f}%}}"
        for name, table in written.items()
        for place, width in enumerate(table.widths, 1)
    )


def _code(text: str) -> Markup:
    """Plain text with what stands between backticks as code."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(parts))


def _markdown(text: str, results: Results | None = None) -> Markup:
    """Markdown of the page and the data card as HTML; raw HTML in it stays text. Images of the card are put inside."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
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
        caption = Markup("{}").format(tokens[place].meta["caption"])
        return f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table>\n' + (
            f'<caption class="hidden-text">{caption}</caption>\n'
        )

    markdown.add_render_rule("table_open", table_open)
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))


def _inside(source: str, results: Results | None) -> str:
    """A picture of the data card as a data URL; nothing for one that is not in the card's own folder."""
    if results is None:
        return "data:,"
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


def _raw(code: str) -> Markup:
    """Code of ours as it is; what would end its element early is refused."""
    if re.search(r"</(script|style)|<!--", code, flags=re.IGNORECASE):
        raise ValueError("report/web or report/assets: code in index.html may not hold '</script', '</style', '<!--'")
    return Markup(code)


def _policy(scripts: list[str], style: str) -> str:
    """Nothing is loaded but images from data URLs; nothing runs but these."""

    def known(code: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {' '.join(known(code) for code in scripts)}; style-src {known(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )

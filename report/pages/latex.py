r"""A table as LaTeX that a paper can \input as it is; needs \usepackage{array,booktabs,graphicx}.

A narrow table takes one column of a page that has two, another both. What is still too wide is shrunk to the line, and
what is too long for a page goes on in a float of its own.
"""

import math
import re
import unicodedata

from report.text import Table

COLUMN, LINE = 57, 140  # characters of a column in \footnotesize, of a whole line in \scriptsize
PAGE = 46  # lines of a table that leave room for its caption and note on an article's page


def latex(table: Table) -> str:
    """The source of a table: one `table` or `table*` environment, or several for a long one."""
    header, rows = list(table.text.columns), table.text.to_numpy().tolist()
    natural = [max(len(str(row[i])) for row in [header, *rows]) + 2 for i in range(len(header))]
    narrow = not table.widths and sum(natural) <= COLUMN
    parts = _parts(rows, table.widths)
    return "\n".join(_float(table, part, place, place == len(parts) - 1, narrow) for place, part in enumerate(parts))


def _parts(rows: list[list], widths: tuple[float, ...]) -> list[list]:
    """Rows page by page; columns are as wide as `widths` says, as shares of the line, else every row is one line."""
    parts, height = [[]], 0
    for row in rows:
        lines = max((math.ceil(len(str(text)) / (0.9 * width * LINE)) for text, width in zip(row, widths)), default=1)
        if parts[-1] and height + lines > PAGE:
            parts.append([])
            height = 0
        parts[-1].append(row)
        height += lines
    return parts


def _float(table: Table, rows: list[list], place: int, last: bool, narrow: bool) -> str:
    header = list(table.text.columns)
    columns = "l" * table.left + "r" * (len(header) - table.left)
    before, after = [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"], ["}"]
    if table.widths:
        share = 0.94 / sum(table.widths)  # leaves the rest for what is between columns
        columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{w * share:.3f}\textwidth}}" for w in table.widths)
        before, after = [], []
    gap = 2 if table.widths else 3
    kind, size = ("table", r"\footnotesize") if narrow else ("table*", r"\scriptsize")
    label = f"tab:{table.name.replace('_', '-')}" + (f"-{place + 1}" if place else "")
    note = [r"\par\medskip", rf"\parbox{{\linewidth}}{{\scriptsize {tex(table.note)}}}"] if last and table.note else []
    # Without the braces, the line break or rule before a row would take its [ for an option and its * for a variant.
    head, *body = ["{}" + " & ".join(map(tex, row)) + r" \\" for row in [header, *rows]]
    return "\n".join([
        rf"\begin{{{kind}}}", r"\centering", rf"\caption{{{tex(table.title)}{' (continued)' if place else ''}.}}",
        rf"\label{{{label}}}", size, rf"\setlength{{\tabcolsep}}{{{gap}pt}}", *before,
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", head, r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}", *after, *note, rf"\end{{{kind}}}", "",
    ])  # fmt: skip


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$",
    "×": r"$\times$", "\N{MINUS SIGN}": "$-$", "\N{INFINITY}": r"$\infty$", "\N{EN DASH}": "--",
    "\N{EM DASH}": "---", "|": r"\textbar{}", "†": r"\dag{}",
}  # fmt: skip


def tex(text) -> str:
    """Text with every character that LaTeX would read as a command or a dash escaped.

    Letters with accents lose them, and what is then no ASCII character becomes a question mark: LaTeX stops at many.
    """
    text = " ".join(str(text).split()).replace("\0", "?")
    parted = re.sub("-(?=-)", "-\0", text)  # two hyphens would be set as a dash
    return "".join("{}" if c == "\0" else _TEX.get(c) or _ascii(c) for c in parted)


def _ascii(c: str) -> str:
    base = unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode()
    return base if base and base.isprintable() and not set(base) & set(_TEX) else "?"

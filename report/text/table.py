"""A table: the numbers as they are, and the same as text."""

from dataclasses import dataclass

import pandas as pd

from pipelines.files.markdown import plain


@dataclass(frozen=True)
class Table:
    """name: the files' stem. title: what it shows, of which results. note: how to read it. raw: numbers. text: strings.

    left: how many columns, from the first, hold words and are set flush left. widths: of columns of sentences, which
    LaTeX then sets as paragraphs, as shares of the line; none where all columns are short.
    """

    name: str
    title: str
    note: str
    raw: pd.DataFrame
    text: pd.DataFrame
    left: int = 1
    widths: tuple[float, ...] = ()

    def csv(self) -> str:
        """The numbers, six digits each."""
        return self.raw.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def markdown(table: Table) -> str:
    """A pipe table; numbers flush right."""
    rows = [list(map(plain, row)) for row in [table.text.columns, *table.text.itertuples(index=False)]]
    rule = ["---" if i < table.left else "---:" for i in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]]) + "\n"

"""Numbers, verdicts and tables as text: what every page and figure writes in the same way.

A value that is missing is a dash everywhere.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pipelines.files import records
from pipelines.files.fonts import cells
from pipelines.files.markdown import plain

DASH = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
MARK = "†"  # behind a method that never names some class
HIGHER = {  # of the verdict on 'the method is better'
    "supported": "more accurate than",
    "contradicted": "less accurate than",
    "inconclusive": "not told apart from",
}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def number(value, form: str) -> str:
    """A value in a format such as '.3f'."""
    return DASH if pd.isna(value) else format(value, form)


def numbers(values, form: str) -> list[str]:
    """Every value in a format."""
    return [number(value, form) for value in values]


def three_digits(value: float) -> str:
    """A positive number to three digits, trailing zeros kept: '0.0412', '2.30', '78.1', '1234'."""
    if pd.isna(value):
        return DASH
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def scaled(value: float, trailing: bool = True) -> str:
    """A large count in three digits: '869k', '2.54M', '4.00G', or '4G' without trailing zeros."""
    unit, sign = next((u, s) for u, s in _UNITS if value >= u or u == 1)
    return f"{three_digits(value / unit) if trailing else format(value / unit, '.3g')}{sign}"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; a minus sign, not a hyphen; no sign where it rounds to zero."""
    if pd.isna(value):
        return DASH
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text[1:] if float(text[1:]) == 0 else text


def points(value: float, *, plus: bool = False) -> str:
    """An accuracy in percentage points, one decimal: 0.0312 is '3.1'; `plus` writes the sign of a difference, and of
    one that would round to nothing a second decimal, since an end of an interval decides by its sign.
    """
    if pd.isna(value):
        return DASH
    if plus:
        return signed(100 * value, 2 if 0 < abs(value) < 0.0005 else 1)
    return f"{100 * value:.1f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share as per cent, without digits that say nothing: 0.05 is '5 %', 0.125 is '12.5 %'."""
    return DASH if pd.isna(share) else f"{round(100 * share, 9):g} %"


def small(share: float) -> str:
    """A share as per cent, at most one decimal; what that would show as nothing is 'under 0.1 %'."""
    return "under 0.1 %" if 0 < share < 0.0005 else percent(round(share, 3))


def mean_sd(mean, sd, digits: int) -> str:
    """'0.912 ± 0.004', or the mean alone where no deviation is known."""
    if pd.isna(mean):
        return DASH
    return f"{mean:.{digits}f}" if pd.isna(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def interval(low, high, *, plus: bool = False) -> str:
    """'[0.901, 0.923]', or with signs, of a difference."""
    if pd.isna(low):
        return DASH
    return f"[{signed(low)}, {signed(high)}]" if plus else f"[{low:.3f}, {high:.3f}]"


def intervals(lows, highs, *, plus=False) -> list[str]:
    """`interval` of every row."""
    return [interval(low, high, plus=plus) for low, high in zip(lows, highs, strict=True)]


def estimates(values, lows, highs) -> list[str]:
    """Accuracies and such with their intervals: '0.912 [0.901, 0.923]'."""
    told = zip(numbers(values, ".3f"), intervals(lows, highs), strict=True)
    return [DASH if value == DASH else f"{value} {ends}" for value, ends in told]


def gap(row) -> str:
    """A difference and its interval, of a row's difference, lo and hi: '+0.012 [-0.003, +0.027]'."""
    return f"{signed(row.difference)} {interval(row.lo, row.hi, plus=True)}"


def with_interval(value, low, high, form=lambda v: number(v, ".2f")) -> str:
    """A value with its interval behind it, where it has one: '0.80 [0.75, 0.85]'."""
    return form(value) if pd.isna(low) else f"{form(value)} [{form(low)}, {form(high)}]"


def p_text(value) -> str:
    """A p value: three decimals, '<0.001' below them."""
    return DASH if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def span(values) -> str:
    """Whole numbers as one, or as a range where they differ: '5', '798-801'; zero stands for a hole and is left out."""
    values = sorted({int(v) for v in values if pd.notna(v) and v > 0})
    if not values:
        return "no"
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,}\N{EN DASH}{values[-1]:,}"


def of_patients(rows: pd.DataFrame) -> str:
    """' of 633 patients', where patients are known."""
    return f" of {span(rows.patients)} patients" if rows.patients.notna().any() else ""


def setting(row) -> str:
    """At what a cost was measured: 'vgg16, 64 px, batch 32, float32'."""
    compiled = ", compiled" if str(row.compile) == "True" else ""
    return f"{row.backbone}, {row.image_size:.0f} px, batch {row.batch_size:.0f}, {row.precision}{compiled}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def plural(number: int, noun: str) -> str:
    """'1 method', '3 methods'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def few(names: Sequence[str], most: int = 4) -> str:
    """The names, or so many of them and how many more there are."""
    return listed(list(names)) if len(names) <= most + 1 else f"{', '.join(names[:most])} and {len(names) - most} more"


def not_counted(methods) -> str:
    """' Second runs, which count as no methods of their own: full-lr1e-4.', or ''; methods: `Results.methods`."""
    names = list(methods.index[methods.second])
    return f" Second runs, which count as no methods of their own: {few(names, 8)}." if names else ""


def unnamed(never: Mapping[str, Sequence[str]]) -> str:
    """What `MARK` means: the classes, by method, that it names for no test image; nothing where there are none."""
    if not never:
        return ""
    told = [f"{few(names, 3)} by {method}" for method, names in list(never.items())[:4]]
    more = f"; and by {plural(len(never) - 4, 'method')} more" if len(never) > 4 else ""
    return f" {MARK} Named for no test image: {'; '.join(told)}{more}."


def wrapped(name: str, width: int = 22) -> str:
    """A method's name on as few lines of at most `width` characters as hyphens allow, the lines about equally long."""
    parts = re.split(r"(?<=-)(?!\d)|(?<= )", name)  # a range of numbers such as 2-5 stays whole

    def lines(limit: int) -> list[str]:
        filled = [""]
        for part in parts:
            if filled[-1] and len(filled[-1] + part.rstrip()) > limit:
                filled.append("")
            filled[-1] += part
        return filled

    fewest = len(lines(width))
    narrowest = next(n for n in range(1, width + 1) if len(lines(n)) <= fewest)
    return "\n".join(line.rstrip() for line in lines(narrowest))


def cut(name: str, most: int) -> str:
    """A name of at most so many cells: the end of a longer one becomes an ellipsis."""
    while cells(name) > most:
        name = name.removesuffix(ELLIPSIS)[:-1].rstrip() + ELLIPSIS
    return name


def abbreviated(name: str, longest: int = 10) -> str:
    """A class name that fits a tick: as it is where short, else its words' initials or its start."""
    if cells(name) <= longest:
        return name
    words = [word for word in re.split(r"[\W_]+", name) if word]
    return "".join(word[0] for word in words).upper() if 1 < len(words) <= longest else cut(name, longest)


def short_names(names: Sequence[str], longest: int = 10) -> dict[str, str]:
    """What each class is called on a tick, in order: abbreviated; where two would be alike, each by its number."""
    short = {str(name): abbreviated(name, longest) for name in names}
    alike = len(set(short.values())) < len(short)
    return {name: f"#{number}" if alike and own != name else own for number, (name, own) in enumerate(short.items(), 1)}


def abbreviations(classes: Sequence[str], among: Collection[str] | None = None) -> str:
    """A caption's last sentence: what short names stand for; nothing where all are whole."""
    short = {name: own for name, own in short_names(classes).items() if own != name and name in (among or classes)}
    return f" Abbreviated: {', '.join(f'{own} {name}' for name, own in short.items())}." if short else ""


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
        """The numbers as `records.csv` writes them."""
        return records.csv(self.raw)


def markdown(table: Table) -> str:
    """A pipe table; numbers flush right."""
    rows = [list(map(plain, row)) for row in [table.text.columns, *table.text.itertuples(index=False)]]
    rule = ["---" if i < table.left else "---:" for i in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]]) + "\n"


def crossed(frame: pd.DataFrame, rows: list[str], head: str, told: Iterable[str], order: Sequence[str]) -> pd.DataFrame:
    """A long frame as a wide table of text: `told`, a cell for each of its rows, by columns `rows` and `head`.

    order: the values of the first of `rows` that are shown, from the top down; all else stays in the frame's order.
    Holes are dashes; the headings of `rows` begin with a capital.
    """
    frame = frame.assign(told=list(told)).drop_duplicates([*rows, head])
    frame = frame[frame[rows[0]].isin(order)]
    wide = frame.set_index([*rows, head]).told.unstack(head)[list(frame[head].unique())]
    left = frame[rows].drop_duplicates().sort_values(rows[0], key=lambda own: own.map(order.index), kind="stable")
    made = left.join(wide, on=rows).fillna(DASH).reset_index(drop=True)
    return made.rename(columns={name: name.capitalize() for name in rows})

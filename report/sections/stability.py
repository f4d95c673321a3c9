"""How steady training is: jitter, drawdown and spikes of the validation curves; a table, each measure defined."""

import pandas as pd

from pipelines.evidence.definitions import DEFINITIONS, INTERVALS
from report.reading import Results, ranked
from report.sections import Section, Table
from report.text import crossed, few, number, points, with_interval

GROUP, ORDER = "Evidence", 70
POINTS = ("spread", "jitter", "drawdown")  # measures in units of accuracy, shown in percentage points


def section(results: Results) -> Section | None:
    if results.stability.value.isna().all():
        return None
    made = table(results.stability, list(results.methods.index), results.describe("val"))
    told = ranked(results.methods).index.intersection(results.learnt)
    learnt = results.stability[results.stability.method.isin(told)]
    title = finding(learnt if len(learnt) else results.stability)
    return Section(title, tables=[made], folded=True)


def finding(frame: pd.DataFrame) -> str:
    """The methods that move least and most from epoch to epoch."""
    jitter = frame[frame.measure == "jitter"].dropna(subset="value").set_index("method").value
    if jitter.empty:
        return f"Stability of training was measured for {few(list(dict.fromkeys(frame.method)))}."
    least, most = jitter.idxmin(), jitter.idxmax()
    text = f"From epoch to epoch validation accuracy moves by {points(jitter[least])} points for {least}"
    return f"{text}." if least == most else f"{text}, {points(jitter[most])} for {most}."


def table(frame: pd.DataFrame, order: list[str], label: str) -> Table:
    """A row a method, a column a measure, with intervals over runs."""
    measures = [name for name in DEFINITIONS if name in set(frame.measure)]
    heads = {name: DEFINITIONS[name][0] + (", points" if name in POINTS else "") for name in measures}
    long = frame.assign(head=frame.measure.map(heads))
    text = crossed(long, ["method"], "head", map(_shown, frame.itertuples()), order)
    meanings = "; ".join(f"{DEFINITIONS[m][0]}: {DEFINITIONS[m][1]}" for m in measures)
    note = (
        "a(t) is the validation accuracy after epoch t; warm-up is the first 30 % of the epochs, rounded up. Values "
        f"are means over runs. {meanings}. {INTERVALS} The more epochs a method trains, the larger the drawdown and "
        "the number of spikes that noise alone brings about."
    )
    for reason, own in frame.dropna(subset="reason").groupby("reason", sort=False):
        note += f" No value for {few(list(own.method.unique()))}: {reason}."
    return Table("stability", f"Stability of training: {label}", note, frame, text)


def _shown(row) -> str:
    """A value with its interval, accuracies in percentage points."""
    scale, form = (100, ".2f") if row.measure in POINTS else (1, ".1f")
    return with_interval(scale * row.value, scale * row.lo, scale * row.hi, lambda v: number(v, form))

"""What the selective scan and the KAN layers cost alone, beside a plain implementation and beside a floor: a table."""

import pandas as pd

from report.reading import Results
from report.sections import Section, Table
from report.text import number, percent, span, three_digits, with_interval

GROUP, ORDER = "Cost", 40
BOUNDS = {"copy": "copying", "arithmetic": "arithmetic", "products": "dense products"}


def section(results: Results) -> Section | None:
    rows = results.cost_layers
    if rows.empty:
        return None
    ends = rows.loc[[rows.reference_ratio.idxmin(), rows.reference_ratio.idxmax()]]
    least, most = (f"{percent(round(r.reference_ratio, 2))} ({r.layer}, {r.method})" for r in ends.itertuples())
    title = f"Layers written for this suite take {least} to {most} of a plain implementation's time."
    made = table(rows, results.profile, results.cost_machine)
    return Section(title, tables=[made], folded=True)


def table(frame: pd.DataFrame, profile: str, where: str) -> Table:
    """Time, peak memory and what is kept for backward, beside the reference's, and the time beside the floor."""
    rows = list(frame.itertuples())
    text = pd.DataFrame({
        "Layer": [str(r.layer) for r in rows], "As in": [f"{r.method}: {r.shape}" for r in rows],
        "Floor": [BOUNDS.get(r.bound, str(r.bound)) for r in rows],
        "Time, ms": [with_interval(r.ms, r.ms_lo, r.ms_hi, three_digits) for r in rows],
        "Time × reference": [
            with_interval(r.reference_ratio, r.reference_ratio_lo, r.reference_ratio_hi) for r in rows
        ],
        "Time × floor": [with_interval(r.floor_ratio, r.floor_ratio_lo, r.floor_ratio_hi, three_digits) for r in rows],
        "Peak, MiB": [three_digits(r.peak_mib) for r in rows],
        "Memory × reference": [number(r.peak_ratio, ".2f") for r in rows],
        "Kept, bytes": [three_digits(r.kept_per_element) for r in rows],
        "Kept by the reference": [three_digits(r.reference_kept_per_element) for r in rows],
        "Error": [number(r.error, ".1e") for r in rows],
    })  # fmt: skip
    note = (
        "Forward and backward of one layer in float32. Reference: the scan as a loop over the sequence, the KAN "
        "layer's basis by the Cox-de Boor recursion, in plain PyTorch. Floor: copying the bytes that must be read "
        "and written, or the arithmetic at the speed of a large matrix product, or the dense products of base and "
        f"spline weights, whichever takes longest. Medians over {span(frame.rounds)} rounds in turns, with 95 % "
        "intervals. Peak: beyond inputs and parameters. Kept: bytes from forward to backward for each number of the "
        "input. Error: largest difference from the reference in the output and every gradient, as a share of the "
        f"largest value; up to {frame.tolerance.max():g} is allowed."
    )
    return Table("layer_costs", f"Selective scan and KAN layers: profile {profile}, {where}", note, frame, text, left=3)

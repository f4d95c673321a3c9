"""What the selective scan and the KAN layers cost alone, by `pipelines.layer_costs`: one table.

cost_layers.csv has no rows in a profile whose `cost` section does not ask for layers, and is not there in results
measured before there was any: no table then.
"""

import pandas as pd

from report import claim_costs
from report.cost import _rounds, _with
from report.results import ReportError, Results
from report.tables import Table, number, seconds

WORDS = ["layer", "method", "shape", "bound"]
NUMBERS = [
    "ms", "ms_lo", "ms_hi", "reference_ms", "floor_ms", "reference_ratio", "reference_ratio_lo", "reference_ratio_hi",
    "floor_ratio", "floor_ratio_lo", "floor_ratio_hi", "peak_mib", "peak_ratio", "kept_per_element",
    "reference_kept_per_element", "error", "tolerance", "rounds",
]  # fmt: skip
BOUNDS = {"copy": "copying", "arithmetic": "arithmetic", "products": "dense products"}


def read(results: Results) -> pd.DataFrame:
    """cost_layers.csv; without a row where there is none.

    Raises:
        ReportError: the file is not readable, lacks a column, or has something else than a number in one of numbers.
    """
    path = results.directory / "cost_layers.csv"
    if not path.is_file():
        return pd.DataFrame(columns=[*WORDS, *NUMBERS])
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: not readable as CSV ({error}); run `{claim_costs.COMMAND}` again") from None
    missing = [name for name in (*WORDS, *NUMBERS) if name not in frame]
    if missing:
        raise ReportError(f"{path}: columns {', '.join(missing)} are missing; run `{claim_costs.COMMAND}` again")
    for name in NUMBERS if len(frame) else ():
        if not pd.api.types.is_numeric_dtype(frame[name]):
            odd = next(v for v in frame[name] if pd.isna(pd.to_numeric(v, errors="coerce")) and pd.notna(v))
            raise ReportError(f"{path}: {name}: found {odd!r}, expected a number; run `{claim_costs.COMMAND}` again")
    return frame


def layer_costs(results: Results) -> Table:
    """Time, peak memory and what is kept for backward, beside the reference's, and the time beside the floor."""
    frame = read(results)
    rows = list(frame.itertuples())
    text = pd.DataFrame({
        "Layer": [str(r.layer) for r in rows],
        "As in": [f"{r.method}: {r.shape}" for r in rows],
        "Floor": [BOUNDS.get(r.bound, str(r.bound)) for r in rows],
        "Time, ms": [_with(r.ms, r.ms_lo, r.ms_hi, seconds) for r in rows],
        "Time × reference": [_with(r.reference_ratio, r.reference_ratio_lo, r.reference_ratio_hi) for r in rows],
        "Time × floor": [_with(r.floor_ratio, r.floor_ratio_lo, r.floor_ratio_hi, seconds) for r in rows],
        "Peak, MiB": [seconds(r.peak_mib) for r in rows],
        "Memory × reference": [number(r.peak_ratio, ".2f") for r in rows],
        "Kept, bytes": [seconds(r.kept_per_element) for r in rows],
        "Kept by the reference": [seconds(r.reference_kept_per_element) for r in rows],
        "Error": [number(r.error, ".1e") for r in rows],
    })  # fmt: skip
    note = (
        "Forward and backward of one layer in float32, with the gradients of its input and all parameters. Reference: "
        "the scan as a loop over the sequence, the KAN layer's basis by the Cox-de Boor recursion, in plain PyTorch, "
        "all stages kept by autograd. Floor of the scan: to copy the bytes that it must read and write, or its "
        "arithmetic at the speed of a large matrix product, which elementwise work does not reach, whichever takes "
        "longer; of a KAN layer: the dense products of its base and spline weights. Both are measured beside the "
        f"layers: values are medians over {_rounds(frame)} rounds in which all take turns, ratios are taken within a "
        "round, and intervals are 95 % ones of the median. Peak: the most memory in use beyond inputs and parameters, "
        "output, gradients and temporaries included. Kept: bytes that stay from forward to backward beyond inputs and "
        "parameters, for each number of the layer's input (batch times L times D for the scan). Error: largest "
        "difference between layer and reference, in the output and every gradient, as a share of the largest value; "
        f"up to {frame.tolerance.max():g} is allowed."
        if len(frame)
        else ""
    )
    title = f"Selective scan and KAN layers: profile {results.profile}, {claim_costs.machine(results)}"
    return Table("layer_costs", title, note, frame, text, left=3)

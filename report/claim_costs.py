"""The ratios of cost.csv that the claims are about, and the machine they were taken on."""

import pandas as pd

from report.results import ReportError, Results, _json

COMMAND = "python -m pipelines.cost"
COLUMNS = {"step": "step_ratio", "memory": "peak_ratio", "inference": "inference_ratio"}
NEEDED = [
    "method", "role", "family", "backbone", "image_size", "batch_size", "precision", "step_ratio", "step_ratio_lo",
    "step_ratio_hi", "peak_mib", "peak_ratio", "inference_ratio", "inference_ratio_lo", "inference_ratio_hi",
]  # fmt: skip
POINT = ["method", "backbone", "image_size", "batch_size", "precision"]
AGAIN = [*POINT, "role", "family", "step_ratio", "step_ratio_lo", "step_ratio_hi", "peak_ratio"]


def ratios(results: Results, method: str, name: str, tolerance: float) -> pd.DataFrame | None:
    """A row for each setting at which cost.csv has a ratio of the method: value, lo, hi, setting (in words), backbone.

    The method on another backbone counts too, be it named alike or with that backbone in front: what a step costs hangs on
    no weights, so a network that was not trained may be measured. Where the method was not, the other CoLoRA methods stand
    for it, and their names with the settings. Without an interval lo and hi are the value -+ `tolerance`, as a share of
    it; NaN without tolerance.

    An interval covers the rounds of one run, not what differs from run to run, of which the growth sweeps give a
    glimpse: measured in the same process among fewer methods. Where they have the method at one of the settings, their
    reading is a row of its own. A verdict that asks something of every row thus asks it of the union of both
    intervals, and is undecided where the readings disagree.

    Args:
        name: a key of `COLUMNS`.

    Returns:
        None where there is no cost.csv.

    Raises:
        ReportError: cost.csv or cost_growth.csv cannot be read or lacks a column.
    """
    frame = read(results)
    if frame is None:
        return None
    frame = pd.concat([frame.assign(run=", one run"), _again(results, frame)], ignore_index=True)
    frame = frame[(frame.role == "method") & (frame.family == "colora") & frame[COLUMNS[name]].notna()]
    bare = pd.Series([_bare(*pair) for pair in zip(frame.method, frame.backbone, strict=True)], frame.index, dtype=str)
    own = frame[bare == _bare(method, results.methods.backbone[method])]
    named = own.empty
    own = frame if named else own
    value = own[COLUMNS[name]]
    ends = [own.get(f"{COLUMNS[name]}_{end}", pd.Series(float("nan"), own.index)) for end in ("lo", "hi")]
    if tolerance:
        ends = [end.fillna(value * factor) for end, factor in zip(ends, (1 - tolerance, 1 + tolerance), strict=True)]
    settings = [
        f"{f'{row.method}, ' if named else ''}{row.backbone}, {row.image_size:.0f} px, batch {row.batch_size:.0f}, "
        f"{row.precision}{compiled(row)}{row.run}"
        for row in own.itertuples()
    ]
    found = {"value": value, "lo": ends[0], "hi": ends[1], "setting": settings, "backbone": own.backbone}
    return pd.DataFrame(found).reset_index(drop=True)


def compiled(row) -> str:
    """Words for a row that was measured under torch.compile."""
    return ", compiled" * (str(getattr(row, "compile", False)) == "True")


def _again(results: Results, frame: pd.DataFrame) -> pd.DataFrame:
    """Second readings, in the growth sweeps, of methods of cost.csv at the same setting, with the columns of `AGAIN`."""
    grown = read(results, "cost_growth.csv", ["sweep", "rank", *AGAIN])
    if grown is None:
        return pd.DataFrame()
    # What is swept by rank is not the method itself, unless it has none. Sweeps share the points where they cross.
    grown = grown[(grown.sweep != "rank") | grown["rank"].isna()].drop_duplicates(POINT)
    there = set(_points(frame[frame.role == "method"]))
    same = pd.Series([point in there for point in _points(grown)], grown.index, dtype=bool)
    return grown[same].assign(run=", same run's growth sweeps")


def _points(frame: pd.DataFrame) -> list[tuple]:
    """Of each row the method, and at what it was measured."""
    return [(*(getattr(row, name) for name in POINT), compiled(row)) for row in frame.itertuples()]


def read(results: Results, name: str = "cost.csv", needed: list[str] = NEEDED) -> pd.DataFrame | None:
    """A file of the cost stage; None where there is none.

    Raises:
        ReportError: it cannot be read or lacks a column that is needed.
    """
    path = results.directory / name
    if not path.is_file():
        return None
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: not readable as CSV ({error}); run `{COMMAND}` again") from None
    missing = [column for column in needed if column not in frame]
    if missing:
        raise ReportError(f"{path}: columns {', '.join(missing)} are missing; run `{COMMAND}` again")
    return frame


def machine(results: Results) -> str:
    """On what the costs were measured, by cost.json: the GPU, or else the CPU and its threads.

    Raises:
        ReportError: cost.json cannot be read.
    """
    path = results.directory / "cost.json"
    found = (_json(path, COMMAND).get("environment") if path.is_file() else None) or {}
    if found.get("gpu"):
        return str(found["gpu"])
    threads = f", {found['threads']} thread{'s' * (found['threads'] != 1)}" if found.get("threads") else ""
    return f"{found['cpu']}{threads}" if found.get("cpu") else "a machine that cost.json does not name"


def _bare(method: str, backbone: str) -> str:
    """A method's name without its backbone's: 'resnet50-full' on resnet50 is 'full'."""
    return method.removeprefix(f"{backbone}-").removesuffix(f"-{backbone}")

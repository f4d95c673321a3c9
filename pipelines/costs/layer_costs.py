"""Time and memory of the selective scan and the KAN layers, forward and backward, beside a reference and a floor.

Layers, references and floors are in `layer_cases`. Ours has to agree with the reference before anything is timed. Then
both, the floor and the machine's best take turns in rounds, and ratios are taken within a round. The floor of a scan is
its bytes at the speed of a large copy or its operations at that of a large matrix product, whichever takes longer
(elementwise work does not reach the latter); the floor of a KAN layer is run and timed.
"""

import functools
from collections.abc import Callable, Sequence

import torch

from pipelines.costs import layer_cases, measure
from pipelines.costs.layer_cases import Case, Comparison
from pipelines.costs.measure import MIB, median_interval, with_limits

TOLERANCE = 1e-4  # float32, sums of thousands of steps


def measure_all(device: torch.device, *, rounds: int, block_s: float, cases: Sequence[Case] | None = None) -> dict:
    """Measure the layers, `layer_cases.CASES` and `BESIDE` where none are given, and print the figures of each.

    Args:
        rounds: of each work. block_s: seconds that one takes at least in a round.

    Returns:
        As `benches.measure_all`: "rows" (columns of cost_layers.csv), "ceiling", "left_out": reasons by case.

    Raises:
        ValueError: a layer does not agree with its reference.
    """
    works, amounts = measure.ceilings([torch.float32], device)
    best = {name: works[name] for name in ("copy", "float32")}
    rows, speeds, left_out = [], {name: [] for name in best}, {}
    for case in (*layer_cases.CASES, *layer_cases.BESIDE) if cases is None else cases:
        try:
            row, own = _case(case, device, best, amounts, rounds, block_s)
        except (torch.OutOfMemoryError, ModuleNotFoundError) as error:
            reason = f"out of memory on {device}"
            if isinstance(error, ModuleNotFoundError):
                reason = f"package {error.name!r} is not installed: pip install -e '.[reference]'"
            left_out[case.method] = reason
            print(f"layers: {case.method} left out: {reason}", flush=True)
            continue
        print(
            f"layers: {row['layer']}, {row['method']} ({row['shape']}): {row['ms']:.3g} ms, "
            f"x{row['reference_ratio']:.3f} of the reference, x{row['floor_ratio']:.2f} of the floor ({row['bound']})",
            flush=True,
        )
        rows.append(row)
        for name, values in own.items():
            speeds[name] += values
    units = {"copy": "bytes_per_s", "float32": "float32_flops_per_s"}
    ceiling = {units[name]: median_interval(values)[0] for name, values in speeds.items() if values}
    return {"rows": rows, "ceiling": ceiling, "left_out": left_out}


def _case(case, device, best, amounts, rounds, block_s) -> tuple[dict, dict]:
    """A case's row, and the machine's speeds round by round."""
    work = layer_cases.set_up(case, device)
    row = {"layer": work.layer, "method": case.method, "shape": work.shape, "elements": work.inputs[0].numel()}
    row |= {"rounds": rounds, "tolerance": TOLERANCE, "error": checked(case.method, work)}
    dy = torch.randn_like(work.ours(*work.inputs))
    forms = {"ours": (work.ours, work.inputs), "reference": (work.reference, work.reference_inputs or work.inputs)}
    if callable(work.floor):
        forms["floor"] = (work.floor, work.floor_inputs)
    runs = {name: functools.partial(forward_backward, *form, dy) for name, form in forms.items()}
    for name, prefix in (("ours", ""), ("reference", "reference_")):
        row[f"{prefix}peak_mib"] = measure.peak_bytes(runs[name], device, 0) / MIB
        row[f"{prefix}kept_mib"] = kept_bytes(*forms[name], work.constants) / MIB
        row[f"{prefix}kept_per_element"] = row[f"{prefix}kept_mib"] * MIB / row["elements"]
    row["peak_ratio"] = row["peak_mib"] / row["reference_peak_mib"]
    works = best | {name: _round(run, device, block_s) for name, run in runs.items()}
    seconds = {name: found["s"] for name, found in measure.rounds(works, rounds, seed=0).items()}
    speeds = {name: [amounts[name] / s for s in seconds[name]] for name in best}
    row["bound"] = "products"
    if not callable(work.floor):
        row["bound"], seconds["floor"] = _floor(work.floor, speeds)
    for name, prefix in (("ours", ""), ("reference", "reference_"), ("floor", "floor_")):
        row |= with_limits(f"{prefix}ms", [1000 * s for s in seconds[name]])
    for name in ("reference", "floor"):
        row |= with_limits(f"{name}_ratio", [a / b for a, b in zip(seconds["ours"], seconds[name], strict=True)])
    return row, speeds


def _floor(least: tuple[float, float], speeds: dict[str, list[float]]) -> tuple[str, list[float]]:
    """What bounds (bytes, operations), and the seconds that they take round by round."""
    moved, done = ([amount / v for v in speeds[name]] for name, amount in zip(("copy", "float32"), least, strict=True))
    bound = "copy" if median_interval(moved)[0] > median_interval(done)[0] else "arithmetic"
    return bound, [max(pair) for pair in zip(moved, done, strict=True)]


def _round(run: Callable, device, block_s) -> Callable[[], dict[str, float]]:
    """Seconds of a run, the mean of as many as take `block_s`; where that is several, an untimed one goes first."""
    run()
    times = measure.times_for(block_s, measure.seconds(run, device))

    def timed():
        if times > 1:
            run()
        return {"s": measure.seconds(run, device, times)}

    return timed


def forward_backward(function: Callable, inputs: list[torch.Tensor], dy: torch.Tensor) -> list[torch.Tensor]:
    """The output and, given its gradient, those of all inputs."""
    y = function(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy)]


def kept_bytes(function: Callable, inputs: list[torch.Tensor], constants: Sequence[torch.Tensor] = ()) -> int:
    """Bytes that autograd keeps between forward and backward: storages, each once, but inputs and constants."""
    own = {t.untyped_storage().data_ptr() for t in (*inputs, *constants)}
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = function(*inputs)
    assert y.requires_grad  # y, alive until here, holds all that is kept: no address was used twice
    return sum(size for address, size in kept.items() if address not in own)


def checked(name: str, work: Comparison) -> float:
    """The largest difference between ours and the reference, in the output and the gradient of every tensor that both
    are given, as a share of the largest value there.

    Raises:
        ValueError: it is above `TOLERANCE`.
    """
    dy = torch.randn_like(work.ours(*work.inputs))
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False  # it rounds by 1e-3
    try:
        given = work.inputs, work.reference_inputs or work.inputs
        both = [forward_backward(*form, dy) for form in zip((work.ours, work.reference), given)]
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    (y, *grads), (expected, *theirs) = both
    theirs = {id(x): grad for x, grad in zip(given[1], theirs, strict=True)}
    pairs = [(y, expected), *((grad, theirs[id(x)]) for x, grad in zip(given[0], grads) if id(x) in theirs)]
    error = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    if not error <= TOLERANCE:
        raise ValueError(
            f"{name} ({work.layer}, {work.shape}): ours and the reference differ by {error:.2g} of the largest value, "
            f"expected at most {TOLERANCE:g}; run tests/test_selective_scan*.py, test_kan*.py and test_layer_costs.py"
        )
    return error

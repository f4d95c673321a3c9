"""Measure what training and running every method costs: time, memory, FLOPs, beside reference implementations.

All take turns in one process, round by round, each round in another order, and ratios to full fine-tuning are taken
within a round; then another process does it all anew, and intervals are over the processes. A run that was interrupted
goes on with the settings it had not finished, on the same machine and with the same code. Files that are whole, of the
same settings and code, are kept, whatever machine they are from.
"""

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from pipelines.evidence import schemas
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.files.hashing import code_hash, sha256_json
from pipelines.profile import Params
from pipelines.runs.code import ROOT, code_files
from pipelines.runs.environment import environment

HERE = Path(__file__).parent
OWN_CODE = [HERE / name for name in ("benches.py", "contenders.py", "measure.py")]  # beside the loop's and the methods'
LAYER_CODE = [*HERE.glob("layer_*.py"), *(ROOT / "baselines" / "layers").glob("*.py")]
TABLES = ("cost", "cost_growth", "cost_layers")
GROWTH, LAYERS = "growth", "layers"


def run(params: Params, device: str | None = None, methods: list[str] | None = None, again: bool = False) -> dict:
    """Measure what the profile's `cost` section asks for and write it; without one, files without a row.

    Args:
        methods: only these, printed and not written.
        again: files that are there are not kept.

    Returns:
        The results of `benches.measure_all` by label, as in `plan`, and those of `layer_costs.measure_all`; {} where
        files are kept.

    Raises:
        ParamsError, baselines.MethodError: the section or a method is wrong.
        ValueError: a layer does not compute what its reference does.
    """
    if params.cost is None:
        print(f"profile {params.profile}: no cost section, nothing to measure; `make cost` measures every method")
        if not _is_kept(params, None):
            _write(params, {}, None)
        return {}
    planned, options = plan(params, methods), _options(params)
    code = OWN_CODE + LAYER_CODE * params.cost.layers
    fingerprint = _fingerprint(sum(planned.values(), []), code, options, params.cost.model_dump())
    if not (again or methods) and _is_kept(params, fingerprint):
        print("`python -m pipelines.cost --again` measures anew")
        return {}
    from pipelines.costs import benches
    from pipelines.training import step

    device = step.pick_device(device, deterministic=params.train.deterministic)
    machine, results, kept = environment(str(device)), {}, []
    for label, lineup in planned.items():
        own = options if label != GROWTH else {**options, "rounds": params.cost.growth.rounds, "inference_batch": 0}
        processes, found = params.cost.processes, []
        for seed in range(processes):
            given = {**own, "seed": seed}
            file = _kept_file(params, lineup, given, machine)
            if file.is_file():
                print(f"{label}: measured before, kept", flush=True)
            else:
                start = time.monotonic()
                measured = _measured(benches.measure_all, label, lineup, str(device), given, processes)
                records.write_json(file, measured)
                print(f"{label}, process {seed + 1} of {processes}: {time.monotonic() - start:.0f} s", flush=True)
            found.append(json.loads(file.read_text()))
            kept.append(file)
        results[label] = benches.combined(found)
        _show(label, results[label])
    if not methods:
        if params.cost.layers:  # last: all else is written, should a layer not compute what its reference does
            from pipelines.costs import layer_costs

            _write(params, results, machine)
            results[LAYERS] = layer_costs.measure_all(device, rounds=options["rounds"], block_s=options["block_s"])
        _write(params, results, machine, fingerprint)
    for path in kept:
        path.unlink(missing_ok=True)
    return results


def _measured(measure_all: Callable, label: str, lineup, device: str, options: dict, processes: int) -> dict:
    """What `measure_all` finds, in a new process where there are to be several."""
    if processes == 1:
        return measure_all(label, lineup, device, **options)
    title = f"{label}, process {options['seed'] + 1} of {processes}"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_all, title, lineup, device, **options).result()


def plan(params: Params, methods: list[str] | None = None) -> dict[str, list]:
    """The contenders that are measured side by side, a group a batch size; the growth sweeps are `GROWTH`.

    Raises:
        ParamsError: a method that is not there.
    """
    from pipelines.costs import contenders

    cost, size = params.cost, params.data.image_size
    chosen = methods or cost.methods or list(params.method)
    groups = {
        f"{size}px-b{batch}": contenders.lineup(params, chosen, image_size=size, batch_size=batch)
        for batch in cost.batch_sizes or [params.train.batch_size]
    }
    if cost.growth and not methods:
        groups[GROWTH] = contenders.growth(params)
    return groups


def _options(params: Params) -> dict:
    """Keyword arguments of `benches.measure_all`; the numbers of classes and training images are the data card's."""
    path = params.results_dir / "data" / "card.json"
    images, classes = params.cost.images, 4
    if path.is_file():
        again = "run `python -m pipelines.prepare` again"
        card = records.read_json(path, again)
        try:
            images = sum(next(iter(card["seeds"].values()))["counts"]["train"].values())
            classes = len(card["classes"])
        except (KeyError, TypeError, AttributeError, StopIteration):
            raise UserError(f"{path}: no classes, or no numbers of training images of a seed; {again}") from None
    else:
        epochs = "no epoch times" if images is None else f"epochs of cost.images, {images:,}"
        print(f"{path} is not there: {epochs}, and four classes; `python -m pipelines.prepare` writes it")
    cost = params.cost
    return {
        "rounds": cost.rounds, "block_s": cost.block_s, "inference_batch": cost.inference_batch,
        "num_classes": classes, "images": images, "deterministic": params.train.deterministic,
    }  # fmt: skip


def _kept_file(params: Params, lineup, options: dict, environment: dict) -> Path:
    """Where the results of contenders measured together are kept until all are there."""
    machine = {key: environment[key] for key in ("torch", "cpu", "threads", "gpu", "cuda", "driver")}
    identity = _fingerprint(lineup, OWN_CODE, options, machine)
    return Path("checkpoints") / params.profile / "cost" / f"{identity}.json"


def _fingerprint(lineup, own_code: list[Path], *facts: dict) -> str:
    """Of contenders, how they are measured, and the code that trains and measures them."""
    code = {*own_code, *(file for contender in lineup for file in code_files(contender.settings["family"]))}
    return sha256_json([[vars(contender) for contender in lineup], facts, code_hash(sorted(code))])


def _is_kept(params: Params, fingerprint: str | None) -> bool:
    """Whether what was measured stays, which is then told: with the fingerprint, in files that can be read. Where an
    older version wrote none, or the profile has no cost section (None), it always does.

    Raises:
        RecordError: cost.json cannot be read.
    """
    path = params.results_dir / "cost.json"
    stored = records.read_json(path, "delete it, or run `python -m pipelines.cost --again`") if path.exists() else {}
    if not (machine := stored.get("environment")) or fingerprint not in (None, stored.get("fingerprint", fingerprint)):
        return False
    try:
        for name in TABLES if fingerprint else ():
            schemas.read(params.results_dir, name)
    except UserError:
        return False
    unknown = "" if "fingerprint" in stored else ", with settings that it does not name"
    print(f"{path}: kept, measured on {machine.get('gpu') or machine.get('cpu')}, {machine.get('date')}{unknown}")
    return True


def _write(params: Params, results: dict, environment: dict | None, fingerprint: str | None = None) -> None:
    """Without a fingerprint it is not all that was asked for, and the next run does not keep it."""
    rows = {label: found["rows"] for label, found in results.items()}
    grown, layers = rows.pop(GROWTH, []), rows.pop(LAYERS, [])
    _write_table(params, "cost", [{**row, "setting": label} for label, own in rows.items() for row in own])
    _write_table(params, "cost_growth", grown)
    if layers or not (params.cost and params.cost.layers):  # earlier layers stay until they are measured
        _write_table(params, "cost_layers", layers)
    content = {
        "environment": environment,
        "fingerprint": fingerprint,
        "deterministic": params.train.deterministic,  # on a GPU it keeps some faster kernels from being used
        "ceiling": {label: found["ceiling"] for label, found in results.items()},
        "left_out": {label: found["left_out"] for label, found in results.items() if found["left_out"]},
    }
    records.write_json(params.results_dir / "cost.json", content)


def _write_table(params: Params, name: str, rows: list[dict]) -> None:
    """Of the rows, which also tell what other tables have, the columns of this one."""
    columns = list(schemas.TABLES[name].columns)
    records.write_csv(params.results_dir / f"{name}.csv", pd.DataFrame(rows).reindex(columns=columns))


def _show(label: str, result: dict) -> None:
    print(f"{label}: {', '.join(f'{name} {value:.3g}' for name, value in result['ceiling'].items())}")
    shown = ["method", "image_size", "batch_size", "step_ms", "step_ratio", "step_ratio_lo", "step_ratio_hi"]
    rows = pd.DataFrame(result["rows"]).reindex(columns=[*shown, "peak_mib", "peak_ratio"])
    text = rows.to_string(index=False, float_format="{:.3f}".format)
    print("none could be measured" if rows.empty else text, flush=True)

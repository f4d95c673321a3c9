"""Choose each method's learning rate on validation images: the same rates, epochs and seeds for every method.

A method's trials are recorded in `results/<profile>/tune/<method>.json`, and kept where they are there already. No
trial looks at its own seed's test images; where the data have folds, these are among the training and validation images
of other seeds, so with every fold in `tune.seeds` the choice has seen images of every test set. A method that states
its rate, or a profile without a `tune` section, is recorded as such.
"""

from contextlib import nullcontext
from pathlib import Path

from pipelines.files import records
from pipelines.files.locks import locked
from pipelines.profile import Params, ParamsError
from pipelines.training import trials


def tune_method(params: Params, method: str, device: str | None = None) -> dict:
    """Train the method's trials unless they are recorded, and record the choice; returns the record.

    Raises:
        UserError: no trial had an end, or another process is at work on them.
        ParamsError: the method's section is wrong.
    """
    path, settings = params.tune_file(method), params.settings(method)
    lock = Path("checkpoints", params.profile, method, "tune.lock")
    with nullcontext() if is_chosen(params, method) else locked(lock):
        if not params.tuned(method):
            none = dict.fromkeys(["seeds", "epochs", "chosen"])
            record = {"fingerprint": None, "method": method, **none, "trials": []}
            print(f"{method}: learning rate {settings['train']['lr']:g}, as the profile states")
        elif is_chosen(params, method):  # by now
            print(f"{method}: tuned, kept")
            return _read(path)
        else:
            record = trials.choose(params, method, device)
        records.write_json(path, record)
    return record


def is_chosen(params: Params, method: str) -> bool:
    """Whether no trial of the method is left to train: its rate is stated, or chosen for these settings and data.

    Raises:
        UserError: the method's section is wrong.
    """
    params.settings(method)
    if not params.tuned(method):
        return True
    stored = _read(params.tune_file(method))
    return bool(stored) and stored.get("fingerprint") == trials.identity(params, method)


def chosen_lr(params: Params, method: str) -> float:
    """The recorded choice for a tuned method.

    Raises:
        ParamsError: none is recorded for these settings, data and code.
    """
    path = params.tune_file(method)
    if not is_chosen(params, method):
        found = "was made with other settings, data or code" if path.exists() else "is not there"
        raise ParamsError(f"{path} {found}; run `python -m pipelines.tune --method {method}` first")
    return _read(path)["chosen"]


def _read(path: Path) -> dict | None:
    return records.read_json(path, "delete it and tune again") if path.exists() else None

"""Choose each arm's learning rate on the validation split: the same grid, epochs and seed for every arm.

Every trial is recorded in `results/<profile>/tune/<arm>.json`, and trials that are there already are kept. The tuning
seed's test images are never looked at; where the data have folds only that seed's are unseen, for other seeds' test
images are among those tuned on. An arm that states its rate, or a profile without a `tune` section, is recorded as
such. Run `python -m pipelines.tune [--arm NAME]`.
"""

import argparse
import sys
from pathlib import Path

from pipelines import records, trials
from pipelines.params import Params, ParamsError, load


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.tune", description=__doc__)
    parser.add_argument("--arm", action="append", help="an arm (may be repeated); default: all arms of the profile")
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: the GPU if there is one")
    args = parser.parse_args(argv)
    try:
        params = load(args.profile_file)
    except ParamsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = 0
    for arm in args.arm or params.arm:  # one arm's failure does not cost the others their trials
        try:
            run(params, arm, args.device)
        except (ValueError, OSError) as error:
            failed += 1
            print(f"error: {arm}: {error}", file=sys.stderr)
    return 1 if failed else 0


def run(params: Params, arm: str, device: str | None = None) -> dict:
    """Train the arm's trials unless they are recorded, and record the choice; returns the record.

    Raises:
        ValueError: training diverged at every rate.
        ParamsError: the arm's section is wrong.
    """
    path, settings = params.tune_file(arm), params.settings(arm)
    if not params.tuned(arm):
        record = {"fingerprint": None, "arm": arm, "seed": None, "epochs": None, "chosen": None, "trials": []}
        print(f"{arm}: learning rate {settings['train']['lr']:g}, as the profile states")
    else:
        record = _read(path)
        if record and record.get("fingerprint") == trials.identity(params, arm):
            print(f"{arm}: tuned, kept")
            return record
        record = trials.choose(params, arm, device)
    records.write_json(path, record)
    return record


def chosen_lr(params: Params, arm: str) -> float:
    """The recorded choice for a tuned arm.

    Raises:
        ParamsError: none is recorded for these settings, data and code.
    """
    path = params.tune_file(arm)
    stored = _read(path)
    if not stored or stored.get("fingerprint") != trials.identity(params, arm):
        found = "was made with other settings, data or code" if stored else "is not there"
        raise ParamsError(f"{path} {found}; run `python -m pipelines.tune --arm {arm}` first")
    return stored["chosen"]


def _read(path: Path) -> dict | None:
    return records.read_json(path, "delete it and tune again") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())

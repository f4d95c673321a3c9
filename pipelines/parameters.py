"""Trained and total parameters of every arm of a profile; needs no weights and computes nothing.

Run `python -m pipelines.parameters [--profile NAME | --profile-file FILE] [--json]`.
"""

import argparse
import json
import sys

from pipelines.params import Params, ParamsError, compose, load


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.parameters", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", help="a profile of conf/profile, whatever is active")
    which.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=4, help="outputs of the networks (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    try:
        counts = count(compose(args.profile) if args.profile else load(args.profile_file), args.classes)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(counts, indent=1))
    else:
        width = max(map(len, counts))
        print(f"{'arm':{width}}  {'backbone':10}  {'trainable':>12}  {'total':>12}  {'share':>7}")
        for arm, c in counts.items():
            share = c["trainable"] / c["total"]
            print(f"{arm:{width}}  {c['backbone']:10}  {c['trainable']:12,}  {c['total']:12,}  {share:7.2%}")
    return 0


def count(params: Params, num_classes: int = 4) -> dict[str, dict]:
    """`{arm: {"trainable": n, "total": n, "backbone": name}}` for every arm of the profile.

    Raises:
        ParamsError, baselines.ArmError: an arm's section is wrong.
    """
    import torch

    import baselines
    from pipelines.train import count_parameters

    counts = {}
    for arm in params.arm:
        settings = params.settings(arm)
        try:
            with torch.device("meta"):  # shapes without memory
                model = baselines.build(
                    arm, settings, num_classes=num_classes, image_size=params.data.image_size, weights="random"
                )
        except TypeError as error:
            raise ParamsError(f"arm.{arm}: an option is missing or of the wrong type: {error}") from error
        counts[arm] = {**count_parameters(model), "backbone": settings["backbone"]}
    return counts


if __name__ == "__main__":
    sys.exit(main())

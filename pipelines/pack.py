"""One archive with all that profiles need elsewhere: code, parameters, prepared data, weights, results so far.

    python -m pipelines.pack oct1k.tar.xz                # here, after `python -m pipelines.prepare`
    tar xf oct1k.tar.xz && cd oct1k                      # there: a machine with a GPU, no git, DVC or network
    python -m pytest -W default tests/test_gpu.py        # what must hold on a GPU before its results count
    python -m pipelines.cost                             # with nothing else running; goes on where it was stopped
    python -m pipelines.launch --minutes 25              # ends after so many minutes; launched again, it goes on
    tar cf back.tar results/oct1k                        # to be unpacked here; `dvc repro` records it

`python -m pipelines.campaign --cost PLAN` does the last four in one command. The code is that of the last commit, which
the records there will name. It needs torch, torchvision, timm, peft, numpy, pandas, scipy, safetensors, scikit-learn,
pydantic, PyYAML, psutil and tqdm there, and pytest for the checks. What is missing can travel as wheels:

    pip download --only-binary :all: --python-version 3.12 -d wheels pydantic    # here, for that Python
    pip install --no-index -f wheels pydantic                                    # there
"""

from pathlib import Path

from pipelines import _cli
from pipelines.launching import packing


@_cli.command
def main(argv=None):
    parser = _cli.parser("pack", __doc__, profile_file=False)
    parser.add_argument("archive", type=Path, help="archive to write: .tar, .tar.gz or .tar.xz")
    parser.add_argument("--profile-file", action="append", help="parameters (may be repeated); default: params.yaml")
    parser.add_argument(
        "--without-code", action="store_true", help="for a machine that has this commit: to be unpacked in its folder"
    )
    args = parser.parse_args(argv)
    packing.pack(args.profile_file or ["params.yaml"], args.archive, code=not args.without_code)
    print(f"{args.archive}: {args.archive.stat().st_size / 2**20:.1f} MiB; unpack it and launch there")


if __name__ == "__main__":
    raise SystemExit(main())

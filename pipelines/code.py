"""Write data/code.json, one hash a family of the code that decides its numbers (see pipelines/runs/code.py).

python -m pipelines.code
"""

import argparse

from pipelines import _cli
from pipelines.files.records import write_json
from pipelines.runs.code import ROOT, hashes


def main(argv=None) -> int:
    argparse.ArgumentParser(
        prog="python -m pipelines.code", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    return _cli.run(lambda: write_json(ROOT / "data" / "code.json", hashes()))


if __name__ == "__main__":
    raise SystemExit(main())

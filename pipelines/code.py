"""Write data/code.json, one hash a family of the code that decides its numbers (see pipelines/runs/code.py)."""

import argparse
import json

from pipelines.runs.code import ROOT, hashes


def main(argv=None) -> int:
    argparse.ArgumentParser(prog="python -m pipelines.code", description=__doc__).parse_args(argv)
    path = ROOT / "data" / "code.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(hashes(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

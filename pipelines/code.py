"""Write data/code.json, one hash a family of the code that decides its numbers (see pipelines/runs/code.py).

python -m pipelines.code
"""

from pipelines import _cli
from pipelines.files.records import write_json
from pipelines.runs.code import ROOT, hashes


@_cli.command
def main(argv=None):
    _cli.parser("code", __doc__, profile_file=False).parse_args(argv)
    write_json(ROOT / "data" / "code.json", hashes())


if __name__ == "__main__":
    raise SystemExit(main())

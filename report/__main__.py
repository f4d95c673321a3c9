"""Write report/<profile>/ from a profile's result files alone: `python -m report [--profile NAME]`."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m report",
        description="Write report/PROFILE/ (index.html, README.md, tables/, figures/) from results/PROFILE/.",
    )
    parser.add_argument(
        "--profile-file", default="params.yaml", help="parameters naming the profile (default: %(default)s)"
    )
    parser.add_argument(
        "--profile", metavar="NAME", help="report on this profile's results whatever the parameters name"
    )
    options = parser.parse_args(arguments)

    from pipelines.profile import ParamsError, load
    from report.results import ReportError

    try:
        profile = options.profile or load(options.profile_file).profile
        print(build(Path("results") / profile, Path("report") / profile))
    except (ParamsError, ReportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(results_directory: Path, out: Path) -> Path:
    """Write the report of the results in a directory to `out`; returns the path of its page.

    Raises:
        report.results.ReportError: a result file is missing or not as expected.
    """
    from report import figures, html, model_card, page, tables
    from report.results import load

    results = load(results_directory)
    written = tables.write_all(results, out / "tables")
    drawn = figures.draw_all(results, out / "figures")
    readme = out / "README.md"
    readme.write_text(page.render(results, written, drawn), encoding="utf-8")
    html.write(results, written, drawn, out)
    model_card.write(results, out)
    return readme


if __name__ == "__main__":
    sys.exit(main())

"""index.html over made-up results: some runs missing, names from data replaced at will."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from pipelines.evidence.summary import summarise
from report import figures, html, style, tables
from report.results import load
from tests import fake_results as fake

METHODS = ["full", "head-only", "bitfit", "colora-blocks2-5", "colora-block5", "vit-lora", "medmamba"]
SKIPPED = [("bitfit", 0), ("bitfit", 1), ("bitfit", 2), ("head-only", 1)]  # bitfit has no run at all
FIGURES = ("accuracy", "learning_curves")  # drawing takes longest: these two stand for all

# What data may hold: markup in the name of a method, a class and a failure.
HOSTILE = {
    "colora-blocks2-5": '<img src=x onerror="window.pwned=1">',
    "medmamba": "</script><script>window.pwned=1</script>",
    "vit-lora": "a & b `c` {{ 7 * 7 }} \"q\" 'r' _s_ *t*",
    "drusen": "<b onmouseover=window.pwned=1>",
}
FAILURE = "<svg onload=window.pwned=1> [x](javascript:window.pwned=1)"
CARD = """# Data card

- Source: made up <iframe src="https://example.org"></iframe> [link](javascript:window.pwned=1)

## Counts

| Class | Images |
| --- | ---: |
| cnv | 3 |

![examples](examples.png) ![stolen](../../secret.png)
"""


def write(where, monkeypatch, rename=None):
    """Summarise, draw and write the page in `where`; returns (results, tables by name, the report's folder)."""
    monkeypatch.chdir(where)
    params = fake.params(METHODS, seeds=(0, 1, 2), allow_missing=True)
    fake.write_profile(params, skip=SKIPPED, n_test=80)
    summarise(params)
    data = params.results_dir / "data"
    data.mkdir()
    (data / "card.json").write_text(json.dumps({"settings": {"source": "folder"}, "count": 240, "patients": None}))
    (data / "card.md").write_text(CARD)
    plt.imsave(data / "examples.png", np.eye(4))
    plt.imsave(params.results_dir.parent / "secret.png", np.eye(3))
    if rename:
        _rename(params.results_dir, rename)
    results = load(where / params.results_dir)
    out = where / "report" / "fake"
    written = tables.write_all(results, out / "tables")
    with plt.rc_context({**plt.rcParamsDefault, "backend": "agg", **style.RC}):
        for name in FIGURES:
            style.save(getattr(figures, name)(results), out / "figures" / name)
    html.write(results, written, list(FIGURES), out)
    return results, written, out


def _rename(directory, names):
    """Replace whole values in all result files, and give every hole a hostile failure."""
    for path in directory.glob("*.csv"):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False).map(lambda value: names.get(value, value))
        if path.name == "runs.csv":
            frame.loc[frame.status != "complete", "failure"] = FAILURE
        frame.to_csv(path, index=False)
    summary = json.loads((directory / "summary.json").read_text())
    (directory / "summary.json").write_text(
        json.dumps({names.get(method, method): row for method, row in summary.items()})
    )

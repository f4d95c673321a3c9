"""index.html over made-up results: some runs missing, names from data replaced at will."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from report import claims, drawing, pages
from report.pages import html
from report.sections import Section
from report.text import Table
from tests.report import made

METHODS = ("full", "head-only", "bitfit", made.METHOD, "colora-block5", "vit-full", "medmamba")
SKIPPED = [("bitfit", 0), ("bitfit", 1), ("bitfit", 2), ("head-only", 1)]  # bitfit has no run at all

# What data may hold: markup in the name of a method, a class and a failure.
HOSTILE = {
    "colora-block5": '<img src=x onerror="window.pwned=1">',
    "medmamba": "</script><script>window.pwned=1</script>",
    "vit-full": "a & b `c` {{ 7 * 7 }} \"q\" 'r' _s_ *t*",
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


def results(where: Path, rename=None):
    """Made-up results in where/results/fake, about the paper."""
    folder = made.write(where / "results" / "fake", METHODS, skip=SKIPPED)
    (folder / "data" / "card.md").write_text(CARD)
    plt.imsave(folder / "data" / "examples.png", np.eye(4))
    plt.imsave(folder.parent / "secret.png", np.eye(3))
    if rename:
        made.rename(folder, rename, FAILURE)
    return pages.read(folder, paper=True)


def sections(found) -> list[Section]:
    """A section with a figure and a table, one folded, the learning curves, and the claims."""
    with drawing.look():
        figure, axis = plt.subplots()
        axis.plot([1, 2, 3], [1.123456, 2, 1])
    rows = found.methods.rename_axis("method").reset_index()[["method", "trainable", "acc_mean"]]
    counts = ["\N{EM DASH}" if pd.isna(v) else f"{v:,.0f}" for v in rows.trainable]
    means = ["\N{EM DASH}" if pd.isna(v) else f"{v:.3f}" for v in rows.acc_mean]
    text = pd.DataFrame({"Method": rows.method, "Trained": counts, "Accuracy": means})
    classes = list(dict.fromkeys(found.confusion["true"]))
    recall = pd.DataFrame([["full", *["0.9"] * len(classes)]], columns=["Method", *classes])
    verdicts = claims.verdicts(found)
    return [
        Section("Two of three are alike.", "Each dot is `one` run.", "A line rises and falls.", figure,
                [Table("main", "Test results", "A note.", rows, text)], name="accuracy", group="Result"),
        Section("All settle.", "By epoch.", "Lines.", figure, name="learning_curves", group="Result"),
        Section(claims.tally(verdicts), tables=[claims.claims(found, verdicts)], name="claims", group="Evidence"),
        Section("One class is hard.", "A note.", tables=[Table("recall", "Recall", "", recall, recall)], folded=True,
                name="confusion", group="Evidence"),
    ]  # fmt: skip


def render(found, out: Path) -> str:
    """The page's source over `sections`."""
    own = sections(found)
    for section in own:
        if section.figure:
            drawing.save(section.figure, out / section.name)
    return html.render(found, pages.answer(found, claims.verdicts(found)), own, out)


def write(where: Path, rename=None) -> Path:
    """The whole report of made-up results, as `python -m report` writes it; returns index.html."""
    return pages.build(results(where, rename), where / "report" / "fake")

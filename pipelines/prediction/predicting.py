"""predictions.csv: what a method's networks say of new images."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.files import records
from pipelines.prediction import ensemble, images
from pipelines.profile import Params


def predict(
    params: Params, method: str, places: Sequence[Path], out: Path, *, seeds: Sequence[int] | None = None,
    device: str | None = None, merged: bool = True,
) -> int:  # fmt: skip
    """Write a row an image: file, predicted, p_CLASS of each class and, of several seeds, spread.

    Probabilities of several seeds are their mean; `spread` is the standard deviation over them of the predicted
    class's. Returns how many files could not be read; each was told on stderr.

    Raises:
        UserError: a place is not there, or no networks; see `ensemble.load`.
        OSError: `out` cannot be written.
    """
    files = images.find(places)
    networks = ensemble.load(params, method, seeds, device, merged=merged)
    several, count = len(networks.seeds) > 1, 0

    def write(file):
        nonlocal count
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["file", "predicted", *(f"p_{name}" for name in networks.classes), *["spread"] * several])
        for found in ensemble.predict(networks, files):
            count += len(found.places)
            for place, row, named, spread in zip(
                found.places, found.mean.tolist(), found.predicted, found.spread.tolist(), strict=True
            ):
                shown = [f"{value:.6f}" for value in (row + [spread] if several else row)]
                table.writerow([files[place], networks.classes[named], *shown])
        text.detach()

    records.write_atomically(out, write)
    print(f"{out}: {count} of {len(files)} images")
    if lost := len(files) - count:
        print(f"error: {lost} of {len(files)} files could not be read", file=sys.stderr)
    return lost

"""predictions.csv: what a method's networks say of new images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

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
    told = 0

    def write(file) -> None:
        nonlocal told
        table = _table(networks, files)
        told = len(table)
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        file.write(text.encode(errors="surrogateescape"))

    records.write_atomically(out, write)  # opened first: a place that cannot be written is told at once
    print(f"{out}: {told} of {len(files)} images")
    return len(files) - told


def _table(networks: ensemble.Ensemble, files: Sequence[Path]) -> pd.DataFrame:
    places, each = ensemble.predict(networks, files)
    mean, predicted = each.mean(0), each.mean(0).argmax(1)
    table = {"file": [files[place] for place in places], "predicted": np.array(networks.classes)[predicted]}
    table |= {f"p_{name}": mean[:, place] for place, name in enumerate(networks.classes)}
    if len(each) > 1:
        table["spread"] = each.std(0, ddof=1)[np.arange(len(places)), predicted]
    return pd.DataFrame(table)

"""The trained networks of a method, one a seed, asked together; predictions.csv is what they say of new images."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from tqdm import tqdm

from pipelines.data import external
from pipelines.data.prepared import Prepared
from pipelines.data.preprocessing import Preprocessing
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.prediction import images
from pipelines.profile import Params, Train
from pipelines.profile.base import explain
from pipelines.training import saved
from pipelines.training.loaders import batches_of
from pipelines.training.step import autocast, pick_device


@dataclass(frozen=True)
class Ensemble:
    """Networks of one method on a device, in evaluation mode, and their cards; their classes and input are the same."""

    networks: list[torch.nn.Module]
    cards: list[saved.ModelCard]
    device: torch.device

    @property
    def classes(self) -> list[str]:
        return self.cards[0].classes

    @property
    def seeds(self) -> list[int]:
        return [card.seed for card in self.cards]

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(**self.cards[0].preprocessing)

    @property
    def recipe(self) -> Train:
        return Train.model_validate(self.cards[0].settings.get("train"))

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """Decoded images, uint8 (B, H, W) or (B, H, W, 3), as the networks see them: by training's own batches."""
        data = Prepared(
            torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64), {"all": np.arange(len(images))},
            self.classes,
        )  # fmt: skip
        recipe = self.recipe.model_copy(update={"eval_batch_size": len(images)})
        return next(batches_of(data, "all", recipe, self.device).in_order())[0]

    @torch.inference_mode()
    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Softmax of each network for normalised images, float32 (seeds, B, C), in the precision trained in."""
        with autocast(self.recipe, self.device):
            logits = torch.stack([network(images).float() for network in self.networks])
        return logits.softmax(-1)


def load(
    params: Params, method: str, seeds: Sequence[int] | None = None, device: str | None = None, *, merged: bool = True
) -> Ensemble:
    """The kept networks of a method, by default of all its seeds.

    Raises:
        UserError: one is not there or damaged (see `pipelines.training.saved.load`), or they differ in classes,
            preprocessing or normalisation, so that one image is not the same to all of them.
    """
    deterministic = Train.model_validate(params.settings(method)["train"]).deterministic
    place = pick_device(device, deterministic=deterministic)
    seeds = list(dict.fromkeys(params.seeds_of(method) if seeds is None else seeds))
    networks, cards = zip(
        *(saved.load(params.model_dir(method, seed), params, place, merged=merged) for seed in seeds), strict=True
    )
    for card in cards[1:]:
        for key in ("classes", "preprocessing", "mean", "std"):
            if getattr(card, key) != getattr(cards[0], key):
                raise UserError(
                    f"{method}: seeds {cards[0].seed} and {card.seed} were trained on other {key} "
                    f"({getattr(cards[0], key)} and {getattr(card, key)}); train both again, or predict with one"
                )
    found = Ensemble(list(networks), list(cards), place)
    try:
        _ = found.recipe, found.preprocessing
    except ValidationError as error:
        where = params.model_dir(method, seeds[0]) / saved.CARD
        raise UserError(f"{explain(error, where, Train)}; it is of another version: train again") from None
    return found


def predict(ensemble: Ensemble, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The places (N,) of the files that could be read, and what each network says of them, float32 (seeds, N, C).

    With a progress bar on a terminal. A file that cannot be read is told on stderr, a line each; the others go on.
    """
    places, brightest, found = [], 0, [np.empty((len(ensemble.seeds), 0, len(ensemble.classes)), np.float32)]
    with tqdm(total=len(files), unit="image", disable=None, leave=False) as bar:
        for batch in images.batches(files, ensemble.preprocessing, ensemble.recipe.eval_batch_size):
            for line in batch.damaged:
                bar.write(f"error: {line}", file=sys.stderr)
            brightest = max(brightest, batch.brightest)
            bar.update(len(batch.places) + len(batch.damaged))
            if len(batch.places):
                places += batch.places.tolist()
                found.append(ensemble.probabilities(ensemble.normalised(batch.images)).cpu().numpy())
    for warning in external.odd_white(brightest, ensemble.preprocessing):
        print(f"warning: {warning}", file=sys.stderr)
    if lost := len(files) - len(places):
        print(f"error: {lost} of {len(files)} files could not be read", file=sys.stderr)
    return np.array(places, np.int64), np.concatenate(found, axis=1)


def write_predictions(
    params: Params, method: str, places: Sequence[Path], out: Path, *, seeds: Sequence[int] | None = None,
    device: str | None = None, merged: bool = True,
) -> int:  # fmt: skip
    """Write a row an image: file, predicted, p_CLASS of each class and, of several seeds, spread.

    Probabilities of several seeds are their mean; `spread` is the standard deviation over them of the predicted
    class's. Returns how many files could not be read; each was told on stderr.

    Raises:
        UserError: a place is not there, no file can be read, or no networks; see `load`. What `out` held then stays.
        OSError: `out` cannot be written.
    """
    files = images.find(places)
    networks = load(params, method, seeds, device, merged=merged)
    told = 0

    def write(file) -> None:
        nonlocal told
        table = _table(networks, files)
        told = len(table)
        if not told:
            raise UserError(f"none of the {len(files)} files can be read; {out} is left as it was")
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        file.write(text.encode(errors="surrogateescape"))

    records.write_atomically(out, write)  # opened first: a place that cannot be written is told at once
    print(f"{out}: {told} of {len(files)} images")
    return len(files) - told


def _table(networks: Ensemble, files: Sequence[Path]) -> pd.DataFrame:
    places, each = predict(networks, files)
    mean, predicted = each.mean(0), each.mean(0).argmax(1)
    table = {"file": [files[place] for place in places], "predicted": np.array(networks.classes)[predicted]}
    table |= {f"p_{name}": mean[:, place] for place, name in enumerate(networks.classes)}
    if len(each) > 1:
        table["spread"] = each.std(0, ddof=1)[np.arange(len(places)), predicted]
    return pd.DataFrame(table)

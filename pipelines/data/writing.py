"""Writes a prepared data set, whose files `prepared` describes, so that a reader sees the old one or the new one."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.data.errors import DataError
from pipelines.data.prepared import ARRAYS, FILES, MANIFEST, Manifest, split_digests
from pipelines.files import records


class Writing:
    """A prepared data set that is being written beside the final names: what was there stays until `finish`, and a
    process that still maps the old images keeps them whole. Leaves nothing behind where it is not finished."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.partial = {name: folder / f".{name}.partial" for name in (*ARRAYS, FILES, MANIFEST)}

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_):
        for leftover in self.partial.values():
            leftover.unlink(missing_ok=True)

    def allocate(self, shape: tuple[int, ...]):
        """A zeroed uint8 array on the disk, which becomes images.npy.

        Raises:
            DataError: there is no room for it.
        """
        try:
            images = np.lib.format.open_memmap(self.partial["images.npy"], "w+", np.uint8, shape)
            # Writing to a mapped file that the disk has no room for would kill the process without a word.
            with open(self.partial["images.npy"], "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except (OSError, OverflowError, ValueError) as error:
            raise DataError(
                f"{self.folder / 'images.npy'}: no room for {math.prod(shape):,} bytes of images ({error}); make it, "
                "or lower data.image_size or the number of images"
            ) from None
        return images

    def finish(
        self, dataset, splits: dict, *, made_from: dict | None = None, seeds: list[int] | None = None
    ) -> Manifest:
        """Write everything but the images, which stand in what `allocate` gave, and put it all in place.

        Args:
            dataset: a `pipelines.data.sources.Dataset`. splits: what its own splits were reduced to.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        dataset.images.flush()
        with records.writing(self.folder):
            with open(self.partial["labels.npy"], "wb") as file:
                np.save(file, dataset.labels, allow_pickle=False)
            with open(self.partial["splits.npz"], "wb") as file:
                np.savez(file, **splits)
            if dataset.files is not None:
                owners = "" if dataset.patients is None else dataset.patients
                table = pd.DataFrame({"file": dataset.files, "patient": owners}).rename_axis("image")
                table.to_csv(self.partial[FILES], lineterminator="\n")
            there = [name for name in (*ARRAYS, FILES) if self.partial[name].exists()]
            patients = None if dataset.patients is None else np.unique(dataset.patients, return_inverse=True)
            manifest = Manifest(
                made_from=made_from,
                seeds=None if dataset.folds is None else seeds,
                folds=dataset.folds,
                classes=dataset.classes,
                count=len(dataset.labels),
                image_size=dataset.images.shape[1],
                channels=1 if dataset.images.ndim == 3 else 3,
                preprocessing=dataset.preprocessing,
                files={name: records.sha256_file(self.partial[name]) for name in there},
                splits=split_digests(splits),
                patients=None if patients is None else len(patients[0]),
                patient_of_image=None if patients is None else patients[1].tolist(),
                origin=dataset.origin,
                warnings=dataset.warnings,
            )
            text = json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n"
            self.partial[MANIFEST].write_text(text, encoding="utf-8")
            (self.folder / MANIFEST).unlink(missing_ok=True)  # between old and new there is none to be trusted
            if dataset.files is None:
                (self.folder / FILES).unlink(missing_ok=True)
            for name in (*there, MANIFEST):
                os.replace(self.partial[name], self.folder / name)
        return manifest

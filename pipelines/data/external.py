"""External data: labelled images of other patients, read as the training data are, on which runs are tested once."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.data import labelled, prepared
from pipelines.data.errors import DataError
from pipelines.data.labelled import Listing
from pipelines.data.prepared import Manifest
from pipelines.data.preprocessing import Preprocessing
from pipelines.data.sources import Dataset, folder, manifest
from pipelines.data.writing import Writing
from pipelines.files.hashing import sha256_json


def prepare(params, data: Manifest, code: str) -> dict[str, Manifest]:
    """Prepare every set of `data.external` beside the training data `data`, and remove what is no longer named.

    Args:
        code: a hash of the code that decides the arrays.

    Raises:
        DataError: as `listed`, or an image cannot be read; or a patient or an image of the training data is among them.
    """
    found = {external.name: _prepare(params, data, external, code) for external in params.data.external}
    for place in prepared.external_dir(params.data_dir, "any").parent.glob("*/"):
        if place.name not in found:
            shutil.rmtree(place)
    return found


def listed(
    path: Path, classes: list[str], pattern: str | None, usual: str | None, follow_links: bool, key: str,
    pattern_key: str,
) -> Listing:  # fmt: skip
    """Labelled images in class folders or in a CSV file, their labels in the order of the training data's classes.

    Args:
        path: a folder, or a file as `data.manifest.path`. classes: of the training data, in their order.
        pattern: reads patients from the names of the files; where it is None `usual` does, in a folder; "" reads none.
        key, pattern_key: name path and pattern in errors.

    Raises:
        DataError: it cannot be listed, its classes are not those of the data, or a file that has a column patient is
            given a pattern.
    """
    if path.expanduser().is_file():
        found = manifest.listing(path, follow_links, key, split=False)
        if pattern and found.patients is not None:
            raise DataError(
                f"{pattern_key}: {path} has a column patient, which says whose images they are; leave one out"
            )
    else:
        found = folder.listing(path, None, follow_links, key, split=False)
        pattern = usual if pattern is None else pattern
    known = [labelled.composed(name) for name in classes]
    if set(found.classes) != set(known):
        differing = {"lacks": set(known) - set(found.classes), "has": set(found.classes) - set(known)}
        what = [f"it {verb} {labelled.some(sorted(names))}" for verb, names in differing.items() if names]
        raise DataError(
            f"{key}: {path}: expected the classes of the data, {', '.join(classes)}; {' and '.join(what)}; rename its "
            "folders or labels"
        )
    if pattern:
        of = [found.classes[label] for label in found.labels]
        found = replace(found, patients=labelled.patients_in(found.files, of, pattern, pattern_key))
    order = np.array([known.index(name) for name in found.classes])
    return replace(found, labels=order[found.labels], classes=classes)


def _prepare(params, data: Manifest, external, code: str) -> Manifest:
    place, key = prepared.external_dir(params.data_dir, external.name), f"data.external ({external.name})"
    usual = params.data.pattern
    listing = listed(
        external.path, data.classes, external.pattern, usual, external.follow_links, f"{key}.path", f"{key}.pattern"
    )
    pattern = usual if external.pattern is None else external.pattern
    made_from = {
        "settings": {"name": external.name, "pattern": pattern, "classes": data.classes},
        "preprocessing": data.preprocessing.model_dump(mode="json"),
        "inputs": {
            "files": listing.digest(),
            "labels": sha256_json(listing.labels.tolist()),
            "patients": None if listing.patients is None else sha256_json(listing.patients.tolist()),
        },
        "beside": [data.files.get(name) for name in ("images.npy", prepared.FILES)],  # what it was compared with
        "code": code,
    }
    if there := prepared.finished(place, made_from, []):
        return there
    with Writing(place) as writing:
        images = labelled.decoded(listing.files, data.preprocessing, writing.allocate)
        warned, brightest = labelled.survey(listing)
        read = Dataset(
            images, listing.labels, listing.classes, {"test": np.arange(len(images))}, data.preprocessing,
            listing.patients, None, listing.names, labelled.describe(listing),
            warned + odd_white(brightest, data.preprocessing) + _unknown(params.data, data, listing, key),
        )  # fmt: skip
        _check_apart(params.data_dir, data, read, key)
        written = writing.finish(read, read.splits, made_from=made_from)
    print(f"{place}: {written.count} images written")
    return written


def odd_white(brightest: int | None, preprocessing: Preprocessing) -> list[str]:
    """A warning where the highest value of 16-bit images (None: there are none) is far from the training data's."""
    if not brightest or preprocessing.white / 2 <= brightest <= preprocessing.white:
        return []
    return [
        f"the brightest 16-bit value is {brightest:,}, but white is {preprocessing.white:,} as in the training data: "
        f"these images come out {'darker' if brightest < preprocessing.white else 'clipped'}"
    ]


def _unknown(settings, data: Manifest, listing: Listing, key: str) -> list[str]:
    """A warning where it cannot be known whether patients of the training data are among the external ones."""
    ways = {"folder": "; set data.folder.pattern", "manifest": "; add a column patient to data.manifest.path"}
    lacking = []
    if data.patients is None:
        lacking.append(f"the training data name no patients{ways.get(settings.source, '')}")
    if listing.patients is None:
        lacking.append(f"these images name no patients; set {key}.pattern, or a column patient in a CSV file")
    told = "whether its patients are in the training data too cannot be checked"
    return [f"{told}: {reason}" for reason in lacking]


def _check_apart(home: Path, data: Manifest, read: Dataset, key: str) -> None:
    """Raise DataError where a patient or an image of the training data is among the external ones."""
    own = prepared.read_files(home) if prepared.FILES in data.files else None
    named = data.patients is not None and read.patients is not None
    if named and (both := sorted(set(own["patient"]) & set(read.patients))):
        raise DataError(
            f"{key}: {len(both)} patients are in the training data too: {labelled.some(both)}; external data must be "
            "of other patients: remove their images"
        )
    images, _ = prepared.open_images(home)
    known = {digest: position for position, digest in enumerate(prepared.image_digests(images))}
    same = [(n, known[digest]) for n, digest in enumerate(prepared.image_digests(read.images)) if digest in known]
    if same:
        names = [
            f"{read.files[n]} is " + (f"image {m}" if own is None else own["file"][m])
            for n, m in same[: labelled.SHOWN]
        ]
        raise DataError(
            f"{key}: {len(same)} images are in the training data too ({'; '.join(names)}); remove them from one of both"
        )

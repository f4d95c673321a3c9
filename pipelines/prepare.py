"""Stage `prepare`: write the profile's data as plain arrays, with a manifest of checksums and a data card.

data/PROFILE/images.npy     uint8 (N, H, W) grey or (N, H, W, 3) RGB; opens memory-mapped
data/PROFILE/labels.npy     int64 (N,)
data/PROFILE/splits.npz     sorted int64 indices: train, val, test; or SEED/train, ... where the data has folds
data/PROFILE/manifest.json  written last: without it, or with other checksums, the rest is not trusted
results/PROFILE/data/       card.json, card.md, examples.png; patients.csv (image, patient) where patients are known
"""

import argparse
import fcntl
import hashlib
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

FILES = ("images.npy", "labels.npy", "splits.npz")
FORMAT = 1  # of the manifest and files; raise it when either changes, so that older data is built again


def prepare(params) -> dict:
    """Prepare the data of `params` (`pipelines.params.Params`) and return its manifest.

    Data already there is kept when its settings, inputs and checksums match; anything else is built again.

    Raises:
        pipelines.sources.DataError: the source cannot be read or split as asked.
    """
    from pipelines import datacard

    directory = params.data_dir
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        wanted = _identity(params)
        manifest = _finished(directory, wanted)
        if manifest is None:
            manifest = _build(params, wanted)
            print(f"{directory}: {manifest['count']} images written")
        else:
            print(f"{directory}: kept, settings and checksums match")
        datacard.write(directory, manifest, params.results_dir / "data")
    return manifest


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(params, identity: dict) -> dict:
    import numpy as np

    from pipelines import sources, splits

    directory = params.data_dir
    manifest_file = directory / "manifest.json"
    manifest_file.unlink(missing_ok=True)
    # Built beside the final names: a process that still maps the old images keeps them whole.
    partial = {name: directory / f".{name}.partial" for name in FILES}

    def allocate(shape):
        return np.lib.format.open_memmap(partial["images.npy"], "w+", np.uint8, shape)

    try:
        dataset = sources.read(params.data, params.seeds, allocate)
        chosen = splits.select(params.data, dataset.labels, dataset.splits, dataset.classes)
        splits.check(dataset.labels, chosen, dataset.classes)
        dataset.images.flush()
        with open(partial["labels.npy"], "wb") as file:
            np.save(file, dataset.labels, allow_pickle=False)
        with open(partial["splits.npz"], "wb") as file:
            np.savez(file, **chosen)
        for name in FILES:
            os.replace(partial[name], directory / name)
    finally:
        for leftover in partial.values():
            leftover.unlink(missing_ok=True)
    patients = None if dataset.patients is None else np.unique(dataset.patients, return_inverse=True)
    shapes = {
        "images.npy": {"shape": list(dataset.images.shape), "dtype": "uint8"},
        "labels.npy": {"shape": list(dataset.labels.shape), "dtype": "int64"},
        "splits.npz": {"shape": {name: [len(indices)] for name, indices in chosen.items()}, "dtype": "int64"},
    }
    manifest = {
        **identity,
        "classes": dataset.classes,
        "image_size": int(dataset.images.shape[1]),
        "channels": 1 if dataset.images.ndim == 3 else 3,
        "count": len(dataset.labels),
        "files": {name: {"sha256": sha256(directory / name), **shapes[name]} for name in FILES},
        # One checksum a split: a cell depends on its own seed's indices, not on which other seeds the profile lists.
        "splits": {name: hashlib.sha256(indices.tobytes()).hexdigest() for name, indices in chosen.items()},
        "folds": dataset.folds,
        "patients": None if patients is None else len(patients[0]),
        # Numbers, not ids: enough to check that no patient crosses splits, without carrying names along.
        "patient_of_image": None if patients is None else patients[1].tolist(),
        "origin": dataset.origin,
    }
    write_text(manifest_file, json.dumps(manifest, indent=1) + "\n")
    return manifest


def _identity(params) -> dict:
    """What the arrays are made from: equal identity, equal arrays. It holds no paths, so data may be moved."""
    from pipelines.code import code_hash

    data = params.data
    settings = {"source": data.source, "image_size": data.image_size, "mode": data.mode}
    settings[data.source] = getattr(data, data.source).model_dump(mode="json")
    inputs = {}
    if data.source == "folder":
        from pipelines.sources import folder

        settings["folder"]["path"] = data.folder.path.name
        inputs["folder"] = folder.listing(data.folder.path)
    if data.source == "medmnist":
        del settings["medmnist"]["cache"]
    if data.mode != "full":
        settings["balanced"] = data.balanced.model_dump(mode="json")
    if data.mode == "distilled":
        settings["distilled"] = data.distilled.model_dump(mode="json")
        inputs["entropies"] = sha256(data.distilled.entropies) if data.distilled.entropies.is_file() else None
    here = Path(__file__).parent
    code = [here / "splits.py", here / "sources" / f"{data.source}.py"]
    return {
        "format": FORMAT,
        "source": data.source,
        "settings": settings,
        "seeds": list(params.seeds) if data.source == "folder" else None,
        "inputs": inputs,
        "code": code_hash(code),
    }


def _finished(directory: Path, wanted: dict) -> dict | None:
    """The manifest in `directory` if it describes what is wanted and the files are as it says, else None."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        # An input that is gone (None) cannot be compared; prepared data then stands for it, as on a second machine.
        kept = {key: manifest["inputs"].get(key) if value is None else value for key, value in wanted["inputs"].items()}
        if any(manifest[key] != value for key, value in {**wanted, "inputs": kept}.items()):
            return None
        if all(sha256(directory / name) == manifest["files"][name]["sha256"] for name in FILES):
            return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # missing or damaged: build it again
    return None


@contextmanager
def _locked(directory: Path):
    """One `prepare` a directory at a time; the lock goes with the process, so a kill leaves none behind."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write in one step: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.prepare", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--profile-file", default="params.yaml", metavar="FILE", help="parameters (default: params.yaml)"
    )
    options = parser.parse_args(arguments)

    from pipelines.params import ParamsError, load
    from pipelines.sources import DataError

    try:
        prepare(load(options.profile_file))
    except (DataError, ParamsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

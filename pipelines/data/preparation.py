"""Stage `prepare`: write the profile's data as plain arrays, with a manifest of checksums and a data card.

data/PROFILE/images.npy     uint8 (N, H, W) grey or (N, H, W, 3) RGB; opens memory-mapped
data/PROFILE/labels.npy     int64 (N,)
data/PROFILE/splits.npz     sorted int64 indices: train, val, test; or SEED/train, ... where the data has folds;
                            train@0.1 or SEED/train@0.1 for each share of the training patients asked for
data/PROFILE/manifest.json  written last: without it, or with other checksums, the rest is not trusted
results/PROFILE/data/       card.json, card.md, examples.png; patients.csv (image, patient) where patients are known
"""

import argparse
import fcntl
import functools
import hashlib
import json
import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from pipelines.files import records

FILES = ("images.npy", "labels.npy", "splits.npz")
FORMAT = 1  # of the manifest and files; raise it when either changes, so that older data is built again


def prepare(params) -> dict:
    """Prepare the data of `params` (`pipelines.profile.Params`) and return its manifest.

    Data already there is kept when its settings, inputs and checksums match; anything else is built again.

    Raises:
        pipelines.sources.DataError: the source cannot be read or split as asked, or there is no room for the images.
        OSError: a folder cannot be written; what was there before is then left whole.
    """
    from pipelines.data import card

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
        card.write(directory, manifest, params.results_dir / "data")
    return manifest


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(params, identity: dict) -> dict:
    import numpy as np

    from pipelines.data import sources, splits

    directory = params.data_dir
    # Built beside the final names: a process that still maps the old images keeps them whole, and until all is written
    # what was there stays.
    partial = {name: directory / f".{name}.partial" for name in (*FILES, "manifest.json")}

    def allocate(shape):
        try:
            images = np.lib.format.open_memmap(partial["images.npy"], "w+", np.uint8, shape)
            # Writing to a mapped file that the disk has no room for would kill the process without a word.
            with open(partial["images.npy"], "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except (OSError, OverflowError, ValueError) as error:
            raise sources.DataError(
                f"{directory / 'images.npy'}: no room for {math.prod(shape):,} bytes of images ({error}); make it, "
                "or lower data.image_size or the number of images"
            ) from None
        return images

    try:
        dataset = sources.read(params.data, params.seeds, allocate)
        chosen = splits.select(params.data, dataset.labels, dataset.splits, dataset.classes)
        chosen = splits.with_shares(params.data.shares, dataset.labels, dataset.patients, chosen, dataset.classes)
        splits.check(dataset.labels, chosen, dataset.classes)
        dataset.images.flush()
        with records.writing(directory), open(partial["labels.npy"], "wb") as file:
            np.save(file, dataset.labels, allow_pickle=False)
        with records.writing(directory), open(partial["splits.npz"], "wb") as file:
            np.savez(file, **chosen)
        manifest = _manifest(identity, dataset, chosen, {name: sha256(partial[name]) for name in FILES})
        with records.writing(directory):
            partial["manifest.json"].write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            (directory / "manifest.json").unlink(missing_ok=True)  # between old and new there is none to be trusted
            for name in partial:
                os.replace(partial[name], directory / name)
    finally:
        for leftover in partial.values():
            leftover.unlink(missing_ok=True)
    return manifest


def _manifest(identity: dict, dataset, chosen: dict, checksums: dict[str, str]) -> dict:
    import numpy as np

    patients = None if dataset.patients is None else np.unique(dataset.patients, return_inverse=True)
    shapes = {
        "images.npy": {"shape": list(dataset.images.shape), "dtype": "uint8"},
        "labels.npy": {"shape": list(dataset.labels.shape), "dtype": "int64"},
        "splits.npz": {"shape": {name: [len(indices)] for name, indices in chosen.items()}, "dtype": "int64"},
    }
    return {
        **identity,
        "classes": dataset.classes,
        "image_size": int(dataset.images.shape[1]),
        "channels": 1 if dataset.images.ndim == 3 else 3,
        "count": len(dataset.labels),
        "files": {name: {"sha256": checksums[name], **shapes[name]} for name in FILES},
        # One checksum a split: a run depends on its own seed's indices, not on which other seeds the profile lists.
        "splits": {name: hashlib.sha256(indices.tobytes()).hexdigest() for name, indices in chosen.items()},
        "folds": dataset.folds,
        "patients": None if patients is None else len(patients[0]),
        # Numbers, not ids: enough to check that no patient crosses splits, without carrying names along.
        "patient_of_image": None if patients is None else patients[1].tolist(),
        "origin": dataset.origin,
    }


def _identity(params) -> dict:
    """What the arrays are made from: equal identity, equal arrays. It holds no paths, so data may be moved."""
    from pipelines.runs.code import code_hash

    data, inputs = params.data, {}
    if data.source == "folder":
        from pipelines.data.sources import folder

        inputs["folder"] = folder.listing(data.folder.path)
    if data.mode == "distilled":
        inputs["entropies"] = sha256(data.distilled.entropies) if data.distilled.entropies.is_file() else None
    here = Path(__file__).parent
    code = [here / "splits.py", here / "sources" / f"{data.source}.py"]
    return {
        "format": FORMAT,
        "source": data.source,
        "settings": _settings(data),
        "seeds": list(params.seeds) if data.source == "folder" else None,
        "inputs": inputs,
        "code": code_hash(code),
    }


def _settings(data) -> dict:
    settings = {"source": data.source, "image_size": data.image_size, "mode": data.mode}
    settings[data.source] = getattr(data, data.source).model_dump(mode="json")
    if data.source == "folder":
        settings["folder"]["path"] = data.folder.path.name
    if data.source == "medmnist":
        del settings["medmnist"]["cache"]
    if data.mode != "full":
        settings["balanced"] = data.balanced.model_dump(mode="json")
    if data.mode == "distilled":
        settings["distilled"] = data.distilled.model_dump(mode="json")
    if data.shares:  # else left out: data prepared before there were shares is as good
        settings["shares"] = data.shares
    return settings


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


def verify(params) -> None:
    """Make sure that the prepared data are whole and what the profile asks for, by reading every byte of them, once in
    a process: their checksums and lengths, labels that name classes, indices that name images.

    Raises:
        FileNotFoundError: nothing is prepared.
        pipelines.sources.DataError, pipelines.records.RecordError: damaged, changed, or of other settings.
    """
    directory = params.data_dir
    paths = [directory / name for name in ("manifest.json", *FILES)]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: no prepared data; run `python -m pipelines.prepare` first")
    settings = json.dumps(_settings(params.data), sort_keys=True)
    _verify(directory, settings, tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in map(os.stat, paths)))


@functools.lru_cache(maxsize=4)
def _verify(directory: Path, settings: str, _stamps) -> None:
    import numpy as np

    from pipelines.data.sources import DataError
    from pipelines.files import arrays

    again = "run `python -m pipelines.prepare`, which builds it again"
    manifest = records.read_json(directory / "manifest.json", again)
    try:
        # Data made by hand may state no settings; then there is nothing to compare.
        if "settings" in manifest and json.dumps(manifest["settings"], sort_keys=True) != settings:
            raise DataError(f"{directory}: prepared with other settings than the profile has now; {again}")
        files = [(name, str(manifest["files"][name]["sha256"])) for name in ("images.npy", "labels.npy")]
        splits, classes = dict(manifest["splits"]), len(manifest["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{directory / 'manifest.json'}: not a manifest ({error!r}); {again}") from None
    for name, expected in files:
        if (found := sha256(directory / name)) != expected:
            raise DataError(
                f"{directory / name}: SHA-256 {found[:12]}..., its manifest says {expected[:12]}...; {again}"
            )
    try:
        name = "images.npy"
        shape, dtype = arrays.check_npy(directory / name)
        if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)):
            raise arrays.ArrayError(f"found {dtype} {shape}, expected uint8 (N, H, W) or (N, H, W, 3)")
        name = "labels.npy"
        if arrays.check_npy(directory / name) != (shape[:1], np.dtype(np.int64)):
            raise arrays.ArrayError(f"expected int64 {shape[:1]}, a label an image")
        labels = np.load(directory / name, allow_pickle=False)
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise arrays.ArrayError(f"labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
        name = "splits.npz"
        for split, indices in arrays.read_npz(directory / name, list(splits)).items():
            if hashlib.sha256(indices.tobytes()).hexdigest() != splits[split]:
                raise arrays.ArrayError(f"{split!r} is not what its manifest says")
            if (
                indices.dtype != np.int64
                or indices.ndim != 1
                or (len(indices) and not 0 <= indices.min() <= indices.max() < shape[0])
            ):
                raise arrays.ArrayError(
                    f"{split!r} holds {indices.dtype} {indices.shape}, expected images 0 to {shape[0] - 1}"
                )
    except arrays.ArrayError as error:
        raise DataError(f"{directory / name}: {error}; {again}") from None


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
    records.write_atomically(path, lambda file: file.write(text.encode()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.prepare", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--profile-file", default="params.yaml", metavar="FILE", help="parameters (default: params.yaml)"
    )
    options = parser.parse_args(arguments)

    from pipelines.data.sources import DataError
    from pipelines.profile import ParamsError, load

    try:
        prepare(load(options.profile_file))
    except (DataError, ParamsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Prepares a profile's data: reads its source, splits it, and writes it with its external data and its data card."""

import re
from pathlib import Path

from pipelines.data import card, external, prepared, sources, splits
from pipelines.data.prepared import Manifest
from pipelines.data.writing import Writing
from pipelines.files import records
from pipelines.files.hashing import code_hash
from pipelines.files.locks import in_turn

HERE = Path(__file__).parent


def prepare(params) -> Manifest:
    """Prepare the data of `params` (`pipelines.profile.Params`) in data/PROFILE; describe them in results/PROFILE/data.
    weights.json beside the data says what the weights files that methods name hold, for DVC.

    Data already there are kept when settings, the content of the files read, the code and the checksums match; anything
    else is built again.

    Raises:
        DataError: a source cannot be read or split as asked, external data share patients or images with the training
            data, or there is no room for the images.
        OSError: a folder cannot be written; what was there before is then left whole.
    """
    folder = params.data_dir
    with in_turn(folder):
        facts = _facts(params)
        manifest = prepared.finished(folder, facts, params.all_seeds)
        if manifest is None:
            manifest = _build(params, facts)
            print(f"{folder}: {manifest.count} images written")
        else:
            print(f"{folder}: kept, settings, files and checksums match")
        records.write_json(folder / "weights.json", _weights(params))
        card.write_patients(manifest, params.results_dir / "data")  # statistics go by it, whatever fails from here on
        others = external.prepare(params, manifest, facts["code"])
        card.write(folder, manifest, others, params.results_dir / "data")
        _tell("", folder, manifest)
        for name, other in others.items():
            _tell(f"{name}: ", prepared.external_dir(folder, name), other)
    return manifest


def _tell(about: str, folder: Path, manifest: Manifest) -> None:
    """Print what was left out, and warnings with the names of the images whose numbers they hold."""
    if left_out := manifest.origin.get("left out"):
        print(f"{about}left out: {'; '.join(f'{kind} ({names})' for kind, names in left_out.items())}")
    names = prepared.read_files(folder)["file"] if prepared.FILES in manifest.files else {}
    for warning in manifest.warnings:
        named = re.sub(r"\bimage (\d+)", lambda number: names.get(int(number[1]), number[0]), warning)
        print(f"warning: {about}{named}")


def _build(params, facts: dict) -> Manifest:
    data = params.data
    with Writing(params.data_dir) as writing:
        dataset = sources.read(data, params.all_seeds, writing.allocate)
        chosen = splits.select(data, dataset.labels, dataset.splits, dataset.classes)
        chosen = splits.with_shares(data.shares, dataset.labels, dataset.patients, chosen, dataset.classes)
        splits.check(dataset.labels, chosen, dataset.classes)
        dataset.warnings.extend(card.repeated_images(dataset))
        return writing.finish(dataset, chosen, made_from=facts, seeds=list(params.all_seeds))


def _weights(params) -> dict[str, str]:
    """SHA-256 of each weights file that is there, but for weights/PROFILE, which DVC looks at itself."""
    stated = [section.get("weights") for section in (params.model, *params.method.values())]
    words = [word for each in stated for word in (each.values() if isinstance(each, dict) else [each])]
    paths = {word: Path(word).expanduser() for word in words if isinstance(word, str)}
    own = Path("weights", params.profile).resolve()
    there = {word: path for word, path in paths.items() if path.is_file() and own not in path.resolve().parents}
    return {word: records.sha256_file(path) for word, path in sorted(there.items())}


def _facts(params) -> dict:
    """What the arrays are made from: equal facts, equal arrays. They hold no paths, so data may be moved."""
    data, inputs = params.data, sources.inputs(params.data)
    if data.mode == "distilled":
        inputs["entropies"] = splits.entropies_digest(data.distilled.entropies)
    code = [
        HERE / f"{name}.py" for name in ("labelled", "pictures", "preprocessing", "splits", f"sources/{data.source}")
    ]
    return {"source": data.source, "settings": sources.settings(data), "inputs": inputs, "code": code_hash(code)}

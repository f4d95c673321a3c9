"""The files of an adapter folder: their names, their checked reading, their writing in one step."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from colora.config import ColoraConfig

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FORMAT, FORMAT_VERSION = "colora-adapter", 1
HEADER = 100_000_000  # bytes: the longest header that safetensors reads, and far above any config
FIELDS = {
    "format": str,
    "format_version": int,
    "library_version": str,
    "config": dict,
    "base": dict,
    "weights_sha256": str,
}


def fingerprint(digests: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{name} {digests[name]}" for name in sorted(digests)).encode()).hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(folder: Path, name: str, most: int) -> bytes:
    if not folder.is_dir():
        raise FileNotFoundError(f"no adapter folder {folder}; save_adapter(model, path) makes one")
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{folder / name} is missing; an adapter folder holds {WEIGHTS} and {CONFIG}")
    size = (folder / name).stat().st_size
    if size > most:
        raise ValueError(f"{folder / name} is {size:,} bytes, and at most {most:,} fit; is it another model's adapter?")
    return (folder / name).read_bytes()


def read_config(folder: Path) -> dict:
    """The JSON record with every field present and of its type."""
    path = folder / CONFIG
    text = read(folder, CONFIG, HEADER)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); save the adapter again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        kind = record.get("format", record.get("peft_type")) if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"{path} is not a CoLoRA adapter: its format is {kind!r}, expected {FORMAT!r}")
    if record.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format_version {record.get('format_version')!r}; this library reads {FORMAT_VERSION}. "
            f"It was written by colora {record.get('library_version')!r}"
        )
    _check_fields(record, set(FIELDS), path, "")
    for key, kind in FIELDS.items():
        if not isinstance(record[key], kind):
            raise ValueError(f"{path}: {key} is {record[key]!r}; expected a JSON {kind.__name__}")
    base = record["base"]
    _check_fields(base, {"fingerprint", "tensors"}, path, "base.")
    digests = base["tensors"]
    if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
        raise ValueError(f"{path}: base.tensors must map parameter names to SHA-256 digests; save the adapter again")
    if not all(name.isprintable() for name in digests) or base["fingerprint"] != fingerprint(digests):
        raise ValueError(f"{path}: base.fingerprint is not that of base.tensors; the file was edited, save it again")
    return record


def _check_fields(record: dict, expected: set[str], path: Path, prefix: str) -> None:
    unknown, missing = sorted(set(record) - expected), sorted(expected - set(record))
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown fields {[prefix + key for key in unknown]}, missing fields "
            f"{[prefix + key for key in missing]}; the file may be from another version of colora"
        )


def saved_fields(config: ColoraConfig) -> dict:
    """The fields that an adapter file holds: all but how gradients are computed."""
    return {name: value for name, value in asdict(config).items() if name != "gradient"}


def colora_config(values: dict, path: Path) -> ColoraConfig:
    _check_fields(values, set(saved_fields(ColoraConfig())), path, "config.")
    try:
        return ColoraConfig(**values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # the last two: odd regular expressions
        raise ValueError(f"{path}: config is not valid: {error}") from error

"""Adapter files: what training changed, in safetensors, with a JSON config that names the base model it belongs to."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from colora.config import ColoraConfig
from colora.conv import ColoraConv2d
from colora.digest import digest
from colora.inject import inject, layers, saved_modules

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


@dataclass(frozen=True)
class _Contents:
    """A model's tensors by name, unmerged, and how they divide between the adapter and the base it stands on."""

    tensors: dict[str, torch.Tensor]
    required: set[str]  # branches, modules_to_save and persistent buffers: in every adapter file
    trained: set[str]  # other parameters that are trainable
    frozen: set[str]  # the rest: the base
    owner: dict[str, ColoraConv2d]  # the layer of each adapted kernel and bias


def _contents(model: nn.Module) -> _Contents:
    adapted = layers(model)
    config = next(iter(adapted.values())).config
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    parameters = dict(model.named_parameters())  # one name for each, also where modules are shared
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(parameters)
    owner, branch = {}, set()
    for name, layer in adapted.items():
        prefix = name + "." if name else ""
        for key, _ in layer.named_parameters():
            if key in ("weight", "bias"):
                owner[prefix + key] = layer
            else:
                branch.add(prefix + key)
    saved = tuple(name + "." for name in saved_modules(model, config))
    head = {name for name in parameters if saved and name.startswith(saved)}
    required = branch | head | (set(tensors) - set(parameters) - aliases)
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad} - required
    return _Contents(tensors, required, trained, set(parameters) - required - trained, owner)


def _base_digest(name: str, contents: _Contents) -> str:
    """Digest of a frozen tensor as it was before any merge-reset."""
    layer = contents.owner.get(name)
    if layer is not None and layer.initial_base is not None:
        return layer.initial_base[name.rpartition(".")[2]]
    return digest(contents.tensors[name])


def _fingerprint(digests: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{name} {digests[name]}" for name in sorted(digests)).encode()).hexdigest()


def save_adapter(model: nn.Module, path: str | os.PathLike) -> None:
    """Write what training changed into the folder `path` (made if absent), whether merged or not.

    `adapter_model.safetensors` holds the branches, `modules_to_save`, any other trainable parameter, all persistent
    buffers (BatchNorm statistics), and the kernels that merge-reset has changed. `adapter_config.json` holds the
    ColoraConfig, versions, and SHA-256 digests of the frozen base tensors as they were before training. Each file is
    replaced in one step, the config last: a folder caught between two saves is refused by `load_adapter`.
    Raises ValueError if the model has no CoLoRA layers; OSError from the file system.
    """
    from colora import __version__

    contents = _contents(model)
    config = next(iter(layers(model).values())).config
    changed = {name for name in contents.frozen & set(contents.owner) if contents.owner[name].initial_base is not None}
    digests = {name: _base_digest(name, contents) for name in sorted(contents.frozen)}
    names = contents.required | contents.trained | changed
    weights = safetensors.torch.save({name: contents.tensors[name].contiguous() for name in sorted(names)})
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "library_version": __version__,
        "config": _saved(config),
        "base": {"fingerprint": _fingerprint(digests), "tensors": digests},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    _replace_file(folder / WEIGHTS, weights)
    _replace_file(folder / CONFIG, (json.dumps(record, indent=2) + "\n").encode())


def _replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_adapter(model: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Read an adapter folder into `model`, in place, and return the model.

    `model` is the plain base (branches are injected) or one injected with the same ColoraConfig; merged layers stay
    merged, with the new update. Parameters that were trained beside the branches become trainable again.

    Raises FileNotFoundError for a missing folder or file and ValueError for everything that does not fit: a file that
    is not what its name says, another format version, unknown or missing config fields, unmatched or missing keys,
    other shapes or dtypes, a different base model, files of two different saves. The model is then left as it was.
    """
    folder = Path(path)
    record = _read_config(folder)
    config = _colora_config(record["config"], folder / CONFIG)
    with _injected(model, config):
        contents = _contents(model)
        # Nothing in the file can be larger than the model itself, so more is not even read.
        data = _read(folder, WEIGHTS, HEADER + sum(tensor.nbytes for tensor in contents.tensors.values()))
        try:
            tensors = safetensors.torch.load(data)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:  # odd types, endless shapes
            raise ValueError(
                f"{folder / WEIGHTS} is not a safetensors file ({error}); save the adapter again"
            ) from error
        _check_keys(tensors, contents, record["base"]["tensors"], folder / WEIGHTS)
        _check_forms(tensors, contents, folder / WEIGHTS)
        found = hashlib.sha256(data).hexdigest()
        if found != record["weights_sha256"]:
            raise ValueError(
                f"{folder / WEIGHTS} has SHA-256 {found[:12]}..., {CONFIG} expects {record['weights_sha256'][:12]}...; "
                "the two files are not of one save, or were damaged: save or copy both again"
            )
        _check_base(tensors, contents, record["base"], folder / CONFIG)
    _write(model, tensors, contents, record["base"]["tensors"])
    return model


@contextmanager
def _injected(model: nn.Module, config: ColoraConfig) -> Iterator[None]:
    """Make sure that `model` has branches of `config`; if the block fails, branches put in here are taken out again."""
    present = [module for module in model.modules() if isinstance(module, ColoraConv2d)]
    if present:
        have, want = _saved(present[0].config), _saved(config)
        different = [f"{key}: model {have[key]!r}, file {want[key]!r}" for key in want if have[key] != want[key]]
        if different:
            raise ValueError(
                f"load_adapter: the model was injected with another ColoraConfig ({'; '.join(different)}); "
                "load into the plain base model instead"
            )
        yield
        return
    children = {id(module): dict(module._modules) for module in model.modules()}
    owners = list(model.modules())
    learnt = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        try:
            inject(model, config)
        except (TypeError, ValueError, RecursionError) as error:  # the last from an odd regular expression
            raise ValueError(f"load_adapter: the adapter's config does not fit this model: {error}") from error
        yield
    except BaseException:
        for module in owners:
            module._modules.update(children[id(module)])
        for parameter, requires_grad in learnt:
            parameter.requires_grad_(requires_grad)
        raise


def _read(folder: Path, name: str, most: int) -> bytes:
    if not folder.is_dir():
        raise FileNotFoundError(f"no adapter folder {folder}; save_adapter(model, path) makes one")
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{folder / name} is missing; an adapter folder holds {WEIGHTS} and {CONFIG}")
    size = (folder / name).stat().st_size
    if size > most:
        raise ValueError(f"{folder / name} is {size:,} bytes, and at most {most:,} fit; is it another model's adapter?")
    return (folder / name).read_bytes()


def _read_config(folder: Path) -> dict:
    """The JSON record with every field present and of its type."""
    path = folder / CONFIG
    text = _read(folder, CONFIG, HEADER)
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
    if not all(name.isprintable() for name in digests) or base["fingerprint"] != _fingerprint(digests):
        raise ValueError(f"{path}: base.fingerprint is not that of base.tensors; the file was edited, save it again")
    return record


def _check_fields(record: dict, expected: set[str], path: Path, prefix: str) -> None:
    unknown, missing = sorted(set(record) - expected), sorted(expected - set(record))
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown fields {[prefix + key for key in unknown]}, missing fields "
            f"{[prefix + key for key in missing]}; the file may be from another version of colora"
        )


def _saved(config: ColoraConfig) -> dict:
    """The fields that an adapter file holds: all but how gradients are computed."""
    return {name: value for name, value in asdict(config).items() if name != "gradient"}


def _colora_config(values: dict, path: Path) -> ColoraConfig:
    _check_fields(values, set(_saved(ColoraConfig())), path, "config.")
    try:
        return ColoraConfig(**values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # the last two: odd regular expressions
        raise ValueError(f"{path}: config is not valid: {error}") from error


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_keys(tensors: dict, contents: _Contents, digests: dict[str, str], path: Path) -> None:
    missing = contents.required - set(tensors)
    if missing:
        raise ValueError(f"{path} lacks {_listed(missing)}, which this model has; is it another model's adapter?")
    parameters = contents.trained | contents.frozen
    unmatched = {name for name in set(tensors) - contents.required if name not in parameters}
    # A tensor in both lists is a kernel that merge-reset changed, which only an adapted convolution can have.
    unmatched |= {name for name in set(tensors) & set(digests) if name not in contents.owner}
    if unmatched:
        raise ValueError(f"{path} holds {_listed(unmatched)}, which matches nothing in this model")


def _check_forms(tensors: dict, contents: _Contents, path: Path) -> None:
    for name, tensor in tensors.items():
        own = contents.tensors[name]
        if tensor.shape != own.shape:
            raise ValueError(f"{path}: {name!r} has shape {tuple(tensor.shape)}, the model's has {tuple(own.shape)}")
        if tensor.dtype != own.dtype:
            raise ValueError(
                f"{path}: {name!r} is {tensor.dtype}, the model's is {own.dtype}; "
                f"convert the model with .to({tensor.dtype}), load, and convert back"
            )


def _check_base(tensors: dict, contents: _Contents, base: dict, path: Path) -> None:
    """Every parameter outside the file must be the one that the adapter was trained on."""
    digests = base["tensors"]
    expected = (contents.trained | contents.frozen) - (set(tensors) - set(digests))
    if expected != set(digests):
        theirs, ours = _listed(set(digests) - expected) or "nothing", _listed(expected - set(digests)) or "nothing"
        raise ValueError(
            f"{path}: a different base model: only the file's base has {theirs}, only this model has {ours}"
        )
    different = {name for name in expected if _base_digest(name, contents) != digests[name]}
    if different:
        raise ValueError(
            f"{path}: a different base model: {len(different)} of {len(digests)} frozen tensors differ in value or "
            f"dtype ({_listed(different)}); load the weights that the adapter was trained on"
        )
    stale = {
        name
        for name in expected - set(tensors)
        if name in contents.owner and contents.owner[name].initial_base is not None
    }
    if stale:
        raise ValueError(
            f"load_adapter: merge-reset has changed {_listed(stale)} of this model, and the adapter needs the original "
            "values; load it into a fresh base model"
        )


@torch.no_grad()
def _write(model: nn.Module, tensors: dict, contents: _Contents, digests: dict[str, str]) -> None:
    merged = [layer for layer in layers(model).values() if layer.merged]
    for layer in merged:
        layer.unmerge()
    targets = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for name, tensor in tensors.items():
        targets[name].copy_(tensor)
        if name in digests:
            layer = contents.owner[name]
            layer.initial_base = {**(layer.initial_base or {}), name.rpartition(".")[2]: digests[name]}
        elif name not in contents.required:
            targets[name].requires_grad_(True)
    for layer in merged:
        layer.merge()

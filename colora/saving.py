"""Adapter files: what training changed, in safetensors, with a JSON config that names the base model it belongs to."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from colora.config import ColoraConfig
from colora.conv import ColoraConv2d
from colora.files import (
    CONFIG,
    FORMAT,
    FORMAT_VERSION,
    HEADER,
    WEIGHTS,
    colora_config,
    fingerprint,
    read,
    read_config,
    replace_file,
    saved_fields,
)
from colora.inject import changeable_layers, inject, layers, saved_modules
from colora.names import named_modules, plain, plain_name
from colora.tensors import digest, is_sharded, like, replace, whole

EXTRA_STATE = "_extra_state"  # torch's name for what get_extra_state gives


@dataclass(frozen=True)
class _Contents:
    """A model's tensors by plain name, unmerged, and how they divide between the adapter and its base."""

    tensors: dict[str, torch.Tensor]
    required: set[str]  # branches, modules_to_save, persistent buffers, extra state: in every adapter file
    trained: set[str]  # other parameters that are trainable
    frozen: set[str]  # the rest: the base
    owner: dict[str, ColoraConv2d]  # the layer of each adapted kernel and bias


def _contents(model: nn.Module) -> _Contents:
    adapted = changeable_layers(model)
    config = next(iter(adapted.values())).config
    model = plain(model)

    def named(tensors: Iterator[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {plain_name(model, name): tensor for name, tensor in tensors}

    state = named((name, value) for name, value in model.state_dict().items() if isinstance(value, torch.Tensor))
    parameters, buffers = named(model.named_parameters()), named(model.named_buffers())  # one name for each
    every = named(model.named_parameters(remove_duplicate=False)) | named(model.named_buffers(remove_duplicate=False))
    aliases = set(every) - set(parameters) - set(buffers)
    owner, branch = {}, set()
    for name, layer in adapted.items():
        prefix = name + "." if name else ""
        for key, _ in layer.named_parameters():
            if key in ("weight", "bias"):
                owner[prefix + key] = layer
            else:
                branch.add(prefix + key)
        state.pop(prefix + "initial_base", None)
    saved = tuple(name + "." for name in saved_modules(model, config))
    head = {name for name in parameters if saved and name.startswith(saved)}
    required = branch | head | (set(state) - set(parameters) - aliases)
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad} - required
    return _Contents(state, required, trained, set(parameters) - required - trained, owner)


def _base_digest(name: str, contents: _Contents) -> str:
    """Digest of a frozen tensor as it was before any merge-reset."""
    layer = contents.owner.get(name)
    initial = {} if layer is None else layer.initial_digests()
    return initial.get(name.rpartition(".")[2]) or digest(contents.tensors[name])


def save_adapter(model: nn.Module, path: str | os.PathLike) -> None:
    """Write what training changed into the folder `path` (made if absent), whether merged or not.

    `adapter_model.safetensors` holds the branches, `modules_to_save`, any other trainable parameter, all persistent
    buffers (BatchNorm statistics), and the kernels that merge-reset has changed. `adapter_config.json` holds the
    ColoraConfig, versions, and SHA-256 digests of the frozen base tensors as they were before training. Each file is
    replaced in one step, the config last: a folder caught between two saves is refused by `load_adapter`.
    Names are those of the plain model, whatever torch.compile, DataParallel or DDP put around it. A model sharded by
    FSDP2 has to be saved by every process, of which the first one writes.
    Raises ValueError if the model has no CoLoRA layers or no values (meta device); RuntimeError if a layer's tensors
    are computed (pruning and the like); OSError from the file system.
    """
    from colora import __version__

    contents = _contents(model)
    _warn_of_extra_state(model)
    config = next(iter(layers(model).values())).config
    changed = {name for name in contents.frozen & set(contents.owner) if contents.owner[name].initial_digests()}
    digests = {name: _base_digest(name, contents) for name in sorted(contents.frozen)}
    names = contents.required | contents.trained | changed
    tensors = {name: contents.tensors[name] for name in sorted(names)}
    without = [name for name, tensor in tensors.items() if tensor.is_meta]
    if without:
        raise ValueError(
            f"save_adapter: {_listed(set(without))} on the meta device: nothing to save; load weights first"
        )
    # A copy of each: two names may share memory, which a safetensors file cannot.
    weights = safetensors.torch.save(
        {name: whole(tensor).cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    )
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "library_version": __version__,
        "config": saved_fields(config),
        "base": {"fingerprint": fingerprint(digests), "tensors": digests},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    if any(map(is_sharded, tensors.values())) and torch.distributed.get_rank() != 0:
        return
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS, weights)
    replace_file(folder / CONFIG, (json.dumps(record, indent=2) + "\n").encode())


def _warn_of_extra_state(model: nn.Module) -> None:
    for name, module in named_modules(model):
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            state = module.get_extra_state()
            if not isinstance(state, torch.Tensor):
                warnings.warn(
                    f"save_adapter: the extra state of {name!r} is a {type(state).__name__}, not a tensor: it is not "
                    "saved; keep it in a state_dict of your own",
                    UserWarning,
                    stacklevel=3,
                )


@torch.inference_mode(False)
def load_adapter(model: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Read an adapter folder into `model`, in place, and return the model.

    `model` is the plain base (branches are injected) or one injected with the same ColoraConfig; merged layers stay
    merged, with the new update. Parameters that were trained beside the branches become trainable again. Branches,
    `modules_to_save` and buffers take the dtype that they were saved in; the base has to be in its own.

    Raises FileNotFoundError for a missing folder or file and ValueError for everything that does not fit: a file that
    is not what its name says, another format version, unknown or missing config fields, unmatched or missing keys,
    other shapes or dtypes, a different base model, files of two different saves. The model is then left as it was.
    """
    folder = Path(path)
    record = read_config(folder)
    config = colora_config(record["config"], folder / CONFIG)
    with _injected(model, config):
        contents = _contents(model)
        # Nothing in the file can be larger than the model itself, so more is not even read.
        data = read(folder, WEIGHTS, HEADER + sum(tensor.nbytes for tensor in contents.tensors.values()))
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
        changeable_layers(model)
        have, want = saved_fields(present[0].config), saved_fields(config)
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
        if name.endswith(EXTRA_STATE):
            continue  # whatever the module's own set_extra_state takes
        if tensor.shape != own.shape:
            raise ValueError(f"{path}: {name!r} has shape {tuple(tensor.shape)}, the model's has {tuple(own.shape)}")
        adopted = name not in contents.owner and tensor.is_floating_point() and own.is_floating_point()
        if tensor.dtype != own.dtype and not adopted:
            raise ValueError(
                f"{path}: {name!r} is {tensor.dtype}, the model's is {own.dtype}; load it into the base model in the "
                "dtype that the adapter was trained on"
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
    # In one order, as every process of a sharded model takes part in each digest.
    different = {name for name in sorted(expected) if _base_digest(name, contents) != digests[name]}
    if different:
        raise ValueError(
            f"{path}: a different base model: {len(different)} of {len(digests)} frozen tensors differ in value or "
            f"dtype ({_listed(different)}); load the weights that the adapter was trained on"
        )
    stale = {
        name for name in expected - set(tensors) if name in contents.owner and contents.owner[name].initial_digests()
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
    model = plain(model)
    modules = dict(named_modules(model)) | {"": model}
    for name, tensor in sorted(tensors.items()):  # in one order, as every process of a sharded model takes part
        place, _, key = name.rpartition(".")
        module = modules[place]
        if key == EXTRA_STATE:
            module.set_extra_state(tensor)
            continue
        target = module._parameters.get(key, module._buffers.get(key))
        replace(target, like(tensor, target))
        if name in digests:
            contents.owner[name].remember_base({key: digests[name]})
        elif name not in contents.required:
            target.requires_grad_(True)
    for layer in merged:
        layer.merge()

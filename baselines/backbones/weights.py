"""Pretrained weights: downloaded by torchvision or timm, or read from a safetensors file, and checked key by key."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from baselines import MethodError

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64)


class WeightsError(MethodError):
    """Weights that cannot be had or do not fit; the message says what was found and how to get them."""


def load_into(
    network: nn.Module,
    backbone: str,
    weights: str | None,
    fetch: Callable[[], dict] | None,
    classifier: tuple[str, ...],
) -> None:
    """Load the network's weights, all of them, and nothing but the published classifier left over.

    Args:
        weights: "imagenet" (calls `fetch`) or the path of a safetensors file.
        classifier: key prefixes to drop.

    Raises:
        WeightsError: as the class says.
    """
    if weights == "imagenet":
        if fetch is None:
            raise WeightsError(
                f"weights 'imagenet': nobody publishes any for {backbone!r}; give a safetensors file (weights: PATH)"
            )
        state = fetch()
    else:
        state = _read(weights, backbone)
    state = {key: value for key, value in state.items() if not key.startswith(classifier)}
    expected = network.state_dict()
    if "pos_embed" in state and "pos_embed" in expected:
        state["pos_embed"] = _resampled(state["pos_embed"], network)
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in expected]
    wrong = [k for k, v in state.items() if k in expected and v.shape != expected[k].shape]
    if missing or extra or wrong:
        what = []
        if missing:
            what.append(f"{len(missing)} keys missing, first {missing[0]!r}")
        if extra:
            what.append(f"{len(extra)} unknown keys, first {extra[0]!r}")
        if wrong:
            key = wrong[0]
            what.append(
                f"{len(wrong)} shapes differ, first {key!r}: "
                f"{tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            )
        raise WeightsError(
            f"weights {str(weights)!r} are not those of {backbone}: {'; '.join(what)}. "
            "Give a file with the keys of the backbone's library (torchvision or timm)."
        )
    broken = [key for key, value in state.items() if value.dtype not in DTYPES or not value.isfinite().all()]
    if broken:
        raise WeightsError(
            f"weights {str(weights)!r}: {len(broken)} tensors hold something else than finite numbers, first "
            f"{broken[0]!r}; the file is damaged: fetch or make it again"
        )
    network.load_state_dict({key: value.to(expected[key].dtype) for key, value in state.items()}, strict=False)


def _resampled(position: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """(1, prefix + h*w, C) position embedding, its grid resampled bicubically to the network's; the prefix is kept."""
    from timm.layers import resample_abs_pos_embed

    prefix = network.num_prefix_tokens
    side = math.isqrt(max(position.shape[1] - prefix, 0)) if position.dim() == 3 else 0
    if not side or position.shape != (1, prefix + side * side, network.pos_embed.shape[2]):
        return position  # of another model, and reported as such
    size = list(network.patch_embed.grid_size)
    return resample_abs_pos_embed(position.float(), new_size=size, num_prefix_tokens=prefix)


def from_torchvision(name: str) -> dict:
    """torchvision's first ImageNet weights of a model; the download is checked by hash."""
    entries = torchvision.models.get_model_weights(name)
    entry = getattr(entries, "IMAGENET1K_V1", entries.DEFAULT)
    try:
        return entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # of the network, the hash, or a damaged file in the cache
        raise WeightsError(
            f"weights 'imagenet' for {name}: download of {entry.url} failed ({error}). "
            "With a connection, run again; without one, "
            f"put the file under {torch.hub.get_dir()}/checkpoints, or give a safetensors file (weights: PATH)."
        ) from error


def from_timm(name: str, **options) -> dict:
    """timm's weights of a model, `NAME.TAG`, from its hub; `options` of the model, to which timm fits them."""
    import timm
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return timm.create_model(name, pretrained=True, **options).state_dict()
    except (OSError, RuntimeError, ValueError, HfHubHTTPError) as error:
        raise WeightsError(
            f"weights 'imagenet' for {name}: download by timm failed ({type(error).__name__}: {error}). "
            "With a connection, run again; without one, give a safetensors file with timm's keys (weights: PATH)."
        ) from error


def _read(weights, backbone) -> dict:
    if not weights:
        raise WeightsError(
            f"no weights given for {backbone}: set `weights` to 'imagenet' (downloaded by torchvision or timm), "
            "to a safetensors file with their keys, or to 'random' to train from scratch on purpose"
        )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"weights {str(weights)!r}: no such file; "
            f"expected a safetensors file of {backbone}, 'imagenet', or 'random'"
        )
    try:
        return load_file(path)
    except Exception as error:  # beside SafetensorError, what torch raises for types and shapes that it does not have
        raise WeightsError(
            f"weights {str(weights)!r}: not a readable safetensors file ({error}); "
            "save it with safetensors.torch.save_file"
        ) from None

"""Nothing that is read can do more than be refused: checkpoints, weights and adapters, damaged or made up.

A few examples of each property; see tests/test_untrusted.py.
"""

import hashlib
import json
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import colora
from baselines.backbones.weights import WeightsError, load_into
from pipelines.training import checkpoint as checkpoints
from tests.damage import JSON, altered, file_like


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("untrusted")


class Small(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False))
        self.add_module("head", nn.Linear(4, 2))


def unchanged(model: nn.Module):
    """A function that asserts that the model is, bit for bit, what it is now."""

    def state():
        values = [(n, t.dtype, t.shape, t.numpy().tobytes()) for n, t in model.state_dict().items()]
        flags = [(n, p.requires_grad, id(p)) for n, p in model.named_parameters()]
        return values, flags, [(n, id(m), m.training) for n, m in model.named_modules()]

    before = state()

    def check():
        assert state() == before

    return check


@pytest.fixture(scope="module")
def checkpoint(here):
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters())
    model.head(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    fit = checkpoints.Fit([{"epoch": 1, "val_acc": 0.5}], 1, {k: v.clone() for k, v in model.state_dict().items()})
    checkpoints.save(here / "c.pt", "me", model, optimizer, None, fit)
    return (here / "c.pt").read_bytes(), model.state_dict()


@given(st.data())
def test_damaged_checkpoints_start_over(here, checkpoint, capsys, data):
    content, state = checkpoint
    (here / "c.pt").write_bytes(data.draw(file_like(content)))
    model = Small()
    check = unchanged(model)
    fit = checkpoints.resume(here / "c.pt", "me", model, torch.optim.AdamW(model.parameters()), None)
    if fit.curves:
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    else:
        check()
        assert "damaged checkpoint" in capsys.readouterr().err


def parsed(content: bytes) -> dict[str, np.ndarray]:
    """The float32 and int64 tensors of a safetensors file, read by its description alone."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    kinds = {"F32": np.float32, "I64": np.int64}
    return {
        name: np.frombuffer(content[8 + length :][slice(*about["data_offsets"])], kinds[about["dtype"]]).reshape(
            about["shape"]
        )
        for name, about in header.items()
        if name != "__metadata__" and about["dtype"] in kinds
    }


def holds(model: nn.Module, content: bytes) -> None:
    for name, array in parsed(content).items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), array)


def with_header(content: bytes, header: dict) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def header_of(content: bytes) -> dict:
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])


WEIGHTS = safetensors.torch.save(Small().state_dict())


@given(file_like(WEIGHTS) | altered(header_of(WEIGHTS), JSON).map(lambda h: with_header(WEIGHTS, h)))
def test_any_bytes_as_weights(here, content):
    (here / "w.safetensors").write_bytes(content)
    model = Small()
    check = unchanged(model)
    try:
        load_into(model, "small", str(here / "w.safetensors"), None, ("classifier.",))
    except WeightsError as error:
        assert "w.safetensors" in str(error)
        check()
    else:
        holds(model, content)


@pytest.fixture(scope="module")
def adapter(here):
    model = colora.inject(Small(), colora.ColoraConfig(target_modules=["0", "3"], modules_to_save=["head"]))
    nn.init.normal_(model[0].depthwise)
    colora.save_adapter(model, here / "adapter")
    return tuple(
        (here / "adapter" / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")
    )


def load_adapter(path: Path, weights: bytes, config: bytes) -> None:
    """Either the model then holds the file's tensors, or ValueError names the file and the model is untouched."""
    (path / "adapter_model.safetensors").write_bytes(weights)
    (path / "adapter_config.json").write_bytes(config)
    for model in (Small(), colora.inject(Small(), colora.ColoraConfig(target_modules=["0"], modules_to_save=["head"]))):
        check = unchanged(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of regular expressions it will read otherwise some day
            try:
                colora.load_adapter(model, path)
            except ValueError as error:
                assert str(path) in str(error) or "load_adapter: " in str(error)
                check()
            else:
                holds(model, weights)


@given(st.data())
def test_any_bytes_as_an_adapter(here, adapter, data):
    weights, config = adapter
    if data.draw(st.booleans()):
        load_adapter(here / "adapter", data.draw(file_like(weights)), config)
    else:
        load_adapter(here / "adapter", weights, data.draw(file_like(config)))


@given(st.data())
def test_any_content_as_an_adapter_with_its_checksums(here, adapter, data):
    """Made by someone who knows the format, so that no checksum stands in the way."""
    weights, record = adapter[0], json.loads(adapter[1])
    if data.draw(st.booleans()):
        weights = with_header(weights, data.draw(altered(header_of(weights), JSON)))
    if data.draw(st.booleans()):
        record = data.draw(altered(record, JSON))
    base = record.get("base")
    if isinstance(base, dict) and isinstance(base.get("tensors"), dict):
        lines = "\n".join(f"{name} {base['tensors'][name]}" for name in sorted(base["tensors"]))
        base["fingerprint"] = hashlib.sha256(lines.encode()).hexdigest()
    record["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    load_adapter(here / "adapter", weights, json.dumps(record).encode())

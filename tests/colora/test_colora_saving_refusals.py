"""Adapter folders that are refused, and leave the model alone."""

import copy
import json

import pytest
import safetensors.torch
import torch
from torch import nn

import colora
from colora import ColoraConfig
from tests.colora.conftest import CONFIG, CONFIG_FILE, WEIGHTS_FILE, Net, base, trained


def refused(model, path, error, message):
    """load_adapter raises, and the model is the same object graph with the same values and flags."""
    modules = list(model.named_modules())
    values = copy.deepcopy(model.state_dict())
    flags = [(name, p.requires_grad) for name, p in model.named_parameters()]
    with pytest.raises(error, match=message):
        colora.load_adapter(model, path)
    assert list(model.named_modules()) == modules
    assert [(name, p.requires_grad) for name, p in model.named_parameters()] == flags
    assert list(model.state_dict()) == list(values)
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def change_config(path, **values):
    record = json.loads((path / CONFIG_FILE).read_text())
    for key, value in values.items():
        *parents, last = key.split("__")
        target = record
        for parent in parents:
            target = target[parent]
        target[last] = value
    (path / CONFIG_FILE).write_text(json.dumps(record))


def change_tensors(path, **values):
    """Rewrite the tensors; None removes one. The key's dots are given as double underscores."""
    tensors = safetensors.torch.load_file(path / WEIGHTS_FILE)
    for key, value in values.items():
        name = key.removeprefix("t").replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    safetensors.torch.save_file(tensors, path / WEIGHTS_FILE)


def test_missing_folder_and_files(saved, tmp_path):
    _, path = saved
    refused(base(), tmp_path / "none", FileNotFoundError, "no adapter folder .*none")
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        data = (path / name).read_bytes()
        (path / name).unlink()
        refused(base(), path, FileNotFoundError, f"{name} is missing")
        (path / name).write_bytes(data)


@pytest.mark.parametrize("data", [b"", b"not tensors", b"\x80\x04\x95junk" * 9, b"\xff" * 64])
def test_weights_that_are_not_safetensors(saved, data):
    _, path = saved
    (path / WEIGHTS_FILE).write_bytes(data)
    refused(base(), path, ValueError, "is not a safetensors file")


def test_truncated_weights(saved):
    _, path = saved
    data = (path / WEIGHTS_FILE).read_bytes()
    (path / WEIGHTS_FILE).write_bytes(data[: len(data) // 2])
    refused(base(), path, ValueError, "is not a safetensors file")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not JSON"),
        ("\u00e9".encode("latin-1"), "is not JSON"),
        ("[]", "not a CoLoRA adapter: its format is 'list'"),
        ('{"peft_type": "LORA"}', "not a CoLoRA adapter: its format is 'LORA'"),
        ('{"format": "colora-adapter", "format_version": 99}', "format_version 99; this library reads 1"),
        ('{"format": "colora-adapter", "format_version": 1}', "missing fields .*'base'"),
    ],
    ids=range(6),
)
def test_config_that_is_not_one(saved, text, message):
    _, path = saved
    (path / CONFIG_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(base(), path, ValueError, message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rank": 4}, r"unknown fields \['rank'\]"),
        ({"config__rank": 4}, r"unknown fields \['config.rank'\]"),
        ({"config__components": "some"}, "config is not valid: .*components is 'some'"),
        ({"config": []}, "config is \\[\\]; expected a JSON dict"),
        ({"base__tensors": {"0.weight": 1}}, "base.tensors must map"),
        ({"base__tensors": {}}, "base.fingerprint is not that of base.tensors"),
        ({"config__target_modules": ["nowhere"]}, "does not fit this model: .*'nowhere'"),
        ({"config__target_modules": ["head"], "config__modules_to_save": []}, "cannot adapt 'head'"),
        ({"config__target_modules": ["0"]}, "holds '3.depthwise', '3.pointwise', which matches nothing"),
    ],
    ids=str,
)
def test_config_with_wrong_contents(saved, change, message):
    _, path = saved
    change_config(path, **change)
    refused(base(), path, ValueError, message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"t3__pointwise": None}, "lacks '3.pointwise'"),
        ({"t1__running_var": None}, "lacks '1.running_var'"),
        ({"thead__weight": None}, "lacks 'head.weight'"),
        ({"tother__weight": torch.ones(1)}, "holds 'other.weight', which matches nothing"),
        ({"t4__weight": torch.ones(4, 6, 1, 1)}, "holds '4.weight', which matches nothing"),
        ({"t3__pointwise": torch.ones(6, 5, 1, 1)}, r"'3.pointwise' has shape \(6, 5, 1, 1\), the model's has \(6, 6"),
        ({"t3__pointwise": torch.ones(6, 6, 1, 1).int()}, "'3.pointwise' is torch.int32, the model's is .*float32"),
        ({"t3__pointwise": torch.ones(6, 6, 1, 1)}, "not of one save, or were damaged"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_weights_with_wrong_contents(saved, change, message):
    _, path = saved
    change_tensors(path, **change)
    refused(base(), path, ValueError, message)


def test_files_of_two_saves(saved, tmp_path):
    _, path = saved
    colora.save_adapter(trained(steps=1), tmp_path / "other")
    (path / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    refused(base(), path, ValueError, "not of one save")


def test_another_base(saved):
    _, path = saved
    other = base()
    with torch.no_grad():
        other[4].weight[0, 0, 0, 0] += 1e-6
    refused(other, path, ValueError, "different base model: 1 of 7 frozen tensors differ.*'4.weight'")
    refused(colora.inject(other, CONFIG), path, ValueError, "different base model")
    refused(Net(width=5), path, ValueError, "shape")
    more = base()
    more.add_module("extra", nn.Linear(2, 2))
    refused(more, path, ValueError, "only this model has 'extra.bias', 'extra.weight'")


def test_adapter_of_the_original_base_is_refused_after_merge_reset(saved):
    _, path = saved
    model = trained(merge_reset=True)
    refused(model, path, ValueError, "merge-reset has changed '0.bias', '0.weight', '3.weight'")


def test_a_model_injected_otherwise(saved):
    _, path = saved
    other = colora.inject(base(), ColoraConfig(target_modules=["0", "3"]))
    refused(other, path, ValueError, "another ColoraConfig .modules_to_save: model .., file .'head',.")


def test_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="call colora.inject"):
        colora.save_adapter(base(), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()

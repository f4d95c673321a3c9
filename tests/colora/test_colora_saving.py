"""Adapter folders: complete round trips, and refusals that leave the model alone."""

import copy
import dataclasses
import json

import pytest
import safetensors.torch
import torch
from torch import nn

import colora
from colora import ColoraConfig, ColoraConv2d

CONFIG = ColoraConfig(target_modules=["0", "3"], modules_to_save=["head"])
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"


class Net(nn.Sequential):
    def __init__(self, width=6):
        super().__init__(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, bias=False),
            nn.Conv2d(width, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.add_module("head", nn.Linear(4, 2))


def base():
    torch.manual_seed(0)
    return Net()


def train(model, steps=3, merge_reset=False):
    torch.manual_seed(7)
    x = torch.randn(8, 3, 10, 10)
    model.train()
    for _ in range(steps):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(8) % 2).backward()
            optimizer.step()
        if merge_reset:
            colora.merge(model)
            colora.reset(model)
    return model.eval()


def trained(config=CONFIG, **kwargs):
    return train(colora.inject(base(), config), **kwargs)


def outputs(model):
    with torch.no_grad():
        return model.eval()(torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(2)))


@pytest.fixture
def saved(tmp_path):
    model = trained()
    colora.save_adapter(model, tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_round_trip_into_the_plain_base(saved):
    model, path = saved
    loaded = base()
    before = outputs(loaded)
    assert colora.load_adapter(loaded, path) is loaded
    assert torch.equal(outputs(loaded), outputs(model)) and not torch.allclose(outputs(loaded), before, atol=1e-3)
    for (name, one), (other_name, other) in zip(loaded.state_dict().items(), model.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other)
    learning = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (loaded, model)]
    assert learning[0] == learning[1]


def test_contents_are_the_branches_the_head_and_the_moved_buffers(saved):
    model, path = saved
    assert sorted(file.name for file in path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    tensors = safetensors.torch.load_file(path / WEIGHTS_FILE)
    assert set(tensors) == {
        "0.pointwise", "0.depthwise", "0.depthwise_bias", "3.pointwise", "3.depthwise", "head.weight", "head.bias",
        "1.running_mean", "1.running_var", "1.num_batches_tracked",
    }  # fmt: skip
    assert not torch.equal(tensors["1.running_mean"], base()[1].running_mean)
    record = json.loads((path / CONFIG_FILE).read_text())
    assert record["config"]["target_modules"] == ["0", "3"]
    frozen = {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias"}
    assert set(record["base"]["tensors"]) == frozen


def test_saving_twice_or_merged_writes_the_same_bytes(saved, tmp_path):
    model, path = saved
    colora.merge(model)
    colora.save_adapter(model, str(tmp_path / "deep" / "merged"))
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        assert (tmp_path / "deep" / "merged" / name).read_bytes() == (path / name).read_bytes()
    colora.save_adapter(model, path)
    assert sorted(file.name for file in path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("merged", [False, True])
def test_loading_into_an_injected_model_replaces_its_branch(saved, merged):
    model, path = saved
    other = trained(steps=1)
    if merged:
        colora.merge(other)
    colora.load_adapter(other, path)
    assert other[0].merged == merged
    torch.testing.assert_close(outputs(other), outputs(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merged", [False, True])
def test_merge_reset_saves_the_kernels_it_changed(tmp_path, merged):
    model = trained(merge_reset=True)
    train(model, steps=1)
    expected = outputs(model)
    if merged:
        colora.merge(model)
    colora.save_adapter(model, tmp_path)
    loaded = colora.load_adapter(base(), tmp_path)
    assert torch.equal(outputs(loaded), expected)
    assert {"0.weight", "0.bias", "3.weight"} <= set(safetensors.torch.load_file(tmp_path / WEIGHTS_FILE))
    # The loaded model still knows which base it came from: saved again, it loads on that base again.
    colora.save_adapter(loaded, tmp_path / "again")
    assert torch.equal(outputs(colora.load_adapter(base(), tmp_path / "again")), expected)


def test_adapter_of_the_original_base_is_refused_after_merge_reset(saved):
    _, path = saved
    model = trained(merge_reset=True)
    refused(model, path, ValueError, "merge-reset has changed '0.bias', '0.weight', '3.weight'")


def test_other_trained_parameters_are_saved_and_stay_trainable(tmp_path):
    model = colora.inject(base(), CONFIG)
    for name in ("0.bias", "1.weight"):
        model.get_parameter(name).requires_grad_(True)
    train(model)
    colora.save_adapter(model, tmp_path)
    loaded = colora.load_adapter(base(), tmp_path)
    assert torch.equal(outputs(loaded), outputs(model))
    assert loaded[0].bias.requires_grad and loaded[1].weight.requires_grad and not loaded[1].bias.requires_grad


@pytest.mark.parametrize("config", [
    ColoraConfig(target_modules=r"[03]", components="depthwise", depthwise_bias=False),
    ColoraConfig(exclude_modules=["0"], components="pointwise"),
    ColoraConfig(pointwise_bias=True),
], ids=str)  # fmt: skip
def test_every_form_of_config_comes_back(tmp_path, config):
    model = trained(config)
    colora.save_adapter(model, tmp_path)
    loaded = colora.load_adapter(base(), tmp_path)
    assert torch.equal(outputs(loaded), outputs(model))
    assert next(m for m in loaded.modules() if isinstance(m, ColoraConv2d)).config == config


def test_how_gradients_are_computed_is_no_part_of_an_adapter(saved):
    model, path = saved
    assert "gradient" not in json.loads((path / CONFIG_FILE).read_text())["config"]
    other = colora.inject(base(), dataclasses.replace(CONFIG, gradient="kernel"))
    colora.load_adapter(other, path)
    assert torch.equal(outputs(other), outputs(model)) and other[0].config.gradient == "kernel"


def test_memory_format_of_the_base_does_not_matter(saved):
    model, path = saved
    loaded = colora.load_adapter(base().to(memory_format=torch.channels_last), path)
    torch.testing.assert_close(outputs(loaded), outputs(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_round_trip(tmp_path, dtype):
    model = colora.inject(base().to(dtype), CONFIG)
    nn.init.normal_(model[0].depthwise)
    colora.save_adapter(model, tmp_path)
    loaded = colora.load_adapter(base().to(dtype), tmp_path)
    assert torch.equal(loaded[0].depthwise, model[0].depthwise)


# --- models as they come out of training ------------------------------------------------------------------------------


def test_wrapped_models_save_and_load_by_plain_names(saved, tmp_path):
    model, path = saved
    wrappers = [lambda m: torch.compile(m, backend="eager"), nn.DataParallel, torch.optim.swa_utils.AveragedModel]
    for place, wrap in enumerate(wrappers):
        colora.save_adapter(wrap(model), tmp_path / str(place))
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            assert (tmp_path / str(place) / name).read_bytes() == (path / name).read_bytes()
        loaded = base()
        colora.load_adapter(wrap(loaded) if place < 2 else loaded, path)
        assert torch.equal(outputs(loaded), outputs(model))
    part = copy.deepcopy(model)
    part[1] = torch.compile(part[1], backend="eager")
    colora.save_adapter(part, tmp_path / "part")
    assert (tmp_path / "part" / WEIGHTS_FILE).read_bytes() == (path / WEIGHTS_FILE).read_bytes()


def test_targets_of_a_wrapped_model_are_named_as_in_the_plain_one(tmp_path):
    model = base()
    colora.inject(nn.DataParallel(model), dataclasses.replace(CONFIG, target_modules="[03]"))
    train(model)
    colora.save_adapter(model, tmp_path)
    assert torch.equal(outputs(colora.load_adapter(base(), tmp_path)), outputs(model))


def test_a_module_under_two_names_saves_its_buffers_once(tmp_path):
    def twice():
        model = base()
        model.add_module("again", nn.ModuleDict({"norm": model[1]}))
        return model

    model = colora.inject(twice(), CONFIG)
    nn.init.normal_(model[0].depthwise)
    model[1].running_mean.normal_()
    colora.save_adapter(model, tmp_path)
    loaded = colora.load_adapter(twice(), tmp_path)
    assert torch.equal(loaded.again["norm"].running_mean, model[1].running_mean)
    assert torch.equal(loaded[0].depthwise, model[0].depthwise)


def test_buffers_that_share_memory_are_saved(tmp_path):
    model = base()
    values = torch.randn(6)
    model[2].register_buffer("all", values)
    model[2].register_buffer("some", values[:3])
    colora.inject(model, CONFIG)
    colora.save_adapter(model, tmp_path)
    assert torch.equal(safetensors.torch.load_file(tmp_path / WEIGHTS_FILE)["2.some"], values[:3])


def test_merge_reset_goes_on_from_a_checkpoint(tmp_path):
    model = trained(merge_reset=True)
    torch.save(model.state_dict(), tmp_path / "checkpoint")
    resumed = colora.inject(base(), CONFIG)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint"))
    train(resumed, steps=1, merge_reset=True)
    colora.save_adapter(resumed, tmp_path / "adapter")
    assert torch.equal(outputs(colora.load_adapter(base(), tmp_path / "adapter")), outputs(resumed))
    # A state dict from before any merge-reset says so too.
    resumed.load_state_dict(colora.inject(base(), CONFIG).state_dict())
    assert resumed[0].initial_base is None and "0.initial_base" not in resumed.state_dict()


def test_float32_branches_on_a_bfloat16_base(tmp_path):
    model = colora.inject(base().bfloat16(), CONFIG)
    for module in (model[0], model[3]):
        for name in ("pointwise", "depthwise"):
            getattr(module, name).data = torch.randn(getattr(module, name).shape)
    model[1].float()
    model[1].requires_grad_(False)
    colora.save_adapter(model, tmp_path / "all")
    with pytest.raises(ValueError, match="different base model"):  # a float32 BatchNorm is another base
        colora.load_adapter(base().bfloat16(), tmp_path / "all")
    model[1].bfloat16()
    colora.save_adapter(model, tmp_path)
    loaded = colora.load_adapter(base().bfloat16(), tmp_path)
    x = torch.randn(2, 3, 10, 10).bfloat16()
    assert loaded[0].pointwise.dtype == torch.float32 and loaded[0].weight.dtype == torch.bfloat16
    assert torch.equal(loaded(x), model(x))
    colora.merge(loaded)
    exact = model[0].weight.float() + model[0].depthwise * model[0].pointwise
    assert torch.equal(loaded[0].weight, exact.bfloat16())


class Counting(nn.ReLU):
    """A module whose extra state is a tensor, or what `kind` makes of it."""

    kind = staticmethod(torch.tensor)

    def __init__(self, count):
        super().__init__()
        self.count = count

    def get_extra_state(self):
        return self.kind(self.count)

    def set_extra_state(self, state):
        self.count = int(state)


def test_extra_state_comes_back_where_it_is_a_tensor(tmp_path):
    def counting(count):
        model = base()
        model[2] = Counting(count)
        return model

    model = colora.inject(counting(3), CONFIG)
    colora.save_adapter(model, tmp_path)
    assert colora.load_adapter(counting(0), tmp_path)[2].count == 3
    model[2].kind = int
    with pytest.warns(UserWarning, match="extra state of '2' is a int, not a tensor"):
        colora.save_adapter(model, tmp_path)


# --- refusals ---------------------------------------------------------------------------------------------------------


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


def test_a_different_head_start_is_the_same_base(saved):
    model, path = saved
    other = base()
    nn.init.zeros_(other.head.weight)
    assert torch.equal(outputs(colora.load_adapter(other, path)), outputs(model))


def test_a_model_injected_otherwise(saved):
    _, path = saved
    other = colora.inject(base(), ColoraConfig(target_modules=["0", "3"]))
    refused(other, path, ValueError, "another ColoraConfig .modules_to_save: model .., file .'head',.")


def test_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="call colora.inject"):
        colora.save_adapter(base(), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()

"""Adapter folders: what is in them, and complete round trips."""

import copy
import dataclasses
import json

import pytest
import safetensors.torch
import torch
from torch import nn

import colora
from colora import ColoraConfig, ColoraConv2d
from tests.colora.conftest import CONFIG, CONFIG_FILE, WEIGHTS_FILE, base, outputs, train, trained


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


def test_a_different_head_start_is_the_same_base(saved):
    model, path = saved
    other = base()
    nn.init.zeros_(other.head.weight)
    assert torch.equal(outputs(colora.load_adapter(other, path)), outputs(model))

"""CoLoRA beside other tools and torch features: hooks, compiled layers, pruning, fusion, tracing, inference mode, meta.

Each test is the right value of something that once was computed wrongly in silence, or failed without a reason.
"""

import copy

import pytest
import torch
from torch import fx, nn
from torch.nn.utils import fusion, parametrizations, prune

import colora
from colora import ColoraConfig, ColoraConv2d


def net(bias=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).eval()


def randomise(model):
    for module in model.modules():
        if isinstance(module, ColoraConv2d):
            nn.init.normal_(module.depthwise, std=0.3)
    return model


def injected(**config):
    return randomise(colora.inject(net(), ColoraConfig(**config)))


@pytest.fixture
def x():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# --- what would go on computing with the old convolution --------------------------------------------------------------


def patched(model):
    conv = model[0]
    conv.forward = lambda x, old=conv.forward: old(x)


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (patched, TypeError, "cannot adapt '0': its forward was replaced on the instance"),
        (lambda model: model[0].compile(backend="eager"), TypeError, "cannot adapt '0': it was compiled by itself"),
        (
            lambda model: setattr(model, "0", torch.compile(model[0], backend="eager")),
            TypeError,
            "the convolution '0' was compiled by itself",
        ),
    ],
    ids=["patched", "compile", "torch.compile"],
)
def test_a_convolution_with_a_forward_of_its_own_is_refused(spoil, error, message):
    model = net()
    spoil(model)
    with pytest.raises(error, match=message):
        colora.inject(model)
    assert not any(isinstance(module, ColoraConv2d) for module in model.modules())


def test_unloading_a_layer_with_a_replaced_forward_is_refused(x):
    model = injected()
    patched(model)
    with pytest.raises(RuntimeError, match="forward was replaced on the instance"):
        colora.merge_and_unload(model)
    del model[0].forward
    expected = model(x)
    close(colora.merge_and_unload(model)(x), expected)


def test_a_model_compiled_as_a_whole_takes_the_branches(x):
    model = net()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        compiled(x)
        randomise(colora.inject(compiled, ColoraConfig(target_modules=["0"])))
        close(compiled(x), model(x))
        assert not torch.allclose(compiled(x), net()(x), atol=1e-3)


# --- memory that is not the layer's own -------------------------------------------------------------------------------


def test_merging_leaves_another_model_with_the_same_memory_alone(x):
    a, b = injected(), injected()
    colora.merge(b)
    b.load_state_dict(a.state_dict(), assign=True)
    before = copy.deepcopy(a.state_dict())
    colora.merge(b)
    colora.unmerge(b)
    colora.merge(b)
    for name, value in a.state_dict().items():
        assert torch.equal(value, before[name]), name
    close(b(x), a(x))


def test_a_state_dict_taken_before_merge_keeps_its_values():
    model = injected()
    state = model.state_dict()
    before = copy.deepcopy(state)
    colora.merge(model)
    colora.reset(model)
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])


def test_merging_resetting_and_loading_keep_the_memory_format(tmp_path):
    model = injected(modules_to_save=["3"]).to(memory_format=torch.channels_last)
    colora.save_adapter(model, tmp_path)
    for operation in (colora.merge, colora.unmerge, colora.merge, colora.reset):
        operation(model)
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last), operation
        assert not model[0].weight.is_contiguous()
    model = colora.load_adapter(net().to(memory_format=torch.channels_last), tmp_path)
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last) and not model[3].weight.is_contiguous()


def test_kernels_tied_in_memory_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[1].weight = nn.Parameter(model[0].weight.data)
    with pytest.raises(ValueError, match="shares its kernel with '[01].weight'"):
        colora.inject(model)
    flat = torch.randn(2 * 81)  # one storage, but no memory in common
    for place in (0, 1):
        model[place].weight = nn.Parameter(flat[81 * place : 81 * (place + 1)].view(3, 3, 3, 3))
    colora.inject(model)


# --- parametrizations, pruning and fusion after inject ----------------------------------------------------------------

PUT_ON = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "prune_branch": lambda layer: prune.l1_unstructured(layer, "pointwise", 0.3),
    "parametrization": lambda layer: nn.utils.parametrize.register_parametrization(layer, "bias", nn.Identity()),
}


@pytest.mark.parametrize("name", PUT_ON)
@pytest.mark.parametrize("operation", ["merge", "reset", "merge_and_unload", "save_adapter"])
def test_computed_tensors_are_refused_before_anything_changes(name, operation, x, tmp_path):
    model = randomise(colora.inject(net(bias=True)))
    PUT_ON[name](model[3])
    expected = model(x)
    arguments = (model, tmp_path) if operation == "save_adapter" else (model,)
    with pytest.raises(RuntimeError, match="'3': .*is computed .weight norm, pruning"):
        getattr(colora, operation)(*arguments)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_folding_a_batch_norm_into_a_layer_is_refused_and_works_after_unloading(merged, bias, x):
    model = randomise(colora.inject(net(bias)))
    model[1].running_mean.normal_()
    expected = model(x)
    if merged:
        colora.merge(model)
    with pytest.raises(RuntimeError, match="merge_and_unload.model. first"):
        fusion.fuse_conv_bn_eval(model[0], model[1])
    assert None not in model.state_dict().values()
    colora.merge_and_unload(model)
    fused = nn.Sequential(fusion.fuse_conv_bn_eval(model[0], model[1]), *model[2:])
    close(fused(x), expected)


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_hooks_put_on_before_can_be_taken_off_after(x):
    model, seen = net(), []
    for put in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        handle = getattr(model[0], put)(lambda *_: seen.append("called"))
        colora.inject(model)
        handle.remove()
        later = getattr(model[0], put)(lambda *_: seen.append("called"))
        colora.merge_and_unload(model)
        later.remove()
        model(x)
    assert not seen


def test_hooks_of_loading_belong_to_the_new_module():
    model, seen = net(), []
    model[0].register_load_state_dict_pre_hook(lambda module, *_: seen.append(type(module)))
    state = model.state_dict()
    colora.inject(model)
    model.load_state_dict(state, strict=False)
    colora.merge_and_unload(model)
    model.load_state_dict(state)
    assert seen == [ColoraConv2d, nn.Conv2d]


# --- tracing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointwise_bias", [False, True])
def test_symbolic_tracing_gives_the_same_function_and_gradients(x, pointwise_bias):
    model = injected(pointwise_bias=pointwise_bias)
    traced = fx.symbolic_trace(model)
    learning = [p for p in model.parameters() if p.requires_grad]
    close(traced(x), model(x))
    expected = torch.autograd.grad(model(x).square().sum(), learning)
    for one, other in zip(torch.autograd.grad(traced(x).square().sum(), learning), expected, strict=True):
        close(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(traced(x), model(x), rtol=0.05, atol=0.05)
    with colora.disable_adapter(model):
        close(fx.symbolic_trace(model)(x), net()(x))


def test_torchvisions_feature_extractor(x):
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = injected()
    extractor = extraction.create_feature_extractor(model, return_nodes={"2": "features"})
    close(extractor(x)["features"], model[:3](x))


@pytest.mark.parametrize("form", ["unmerged", "merged", "unloaded"])
def test_exported_program_computes_the_same(form, x):
    model = injected()
    expected = model(x).detach()
    if form == "merged":
        colora.merge(model)
    if form == "unloaded":
        colora.merge_and_unload(model)
    program = torch.export.export(model, (x,))
    close(program.module()(x), expected)


# --- inference mode and the meta device -------------------------------------------------------------------------------


def trains(model, x):
    model(x).square().sum().backward()
    branches = [m for m in model.modules() if isinstance(m, ColoraConv2d)]
    return branches and all(branch.depthwise.grad.abs().sum() > 0 for branch in branches)


@pytest.mark.parametrize("operations", [
    ["inject"], ["merge", "unmerge"], ["merge", "reset"], ["reset"], ["merge"], ["save_adapter", "load_adapter"],
    ["load_state_dict"],
], ids="-".join)  # fmt: skip
def test_work_done_in_inference_mode_can_be_trained_outside(operations, x, tmp_path):
    model = net() if operations == ["inject"] else injected()
    expected = model(x).detach()
    with torch.inference_mode():
        for operation in operations:
            if operation == "load_state_dict":
                colora.merge(model)
                model.load_state_dict(model.state_dict())
            else:
                arguments = (model, tmp_path) if "adapter" in operation else (model,)
                getattr(colora, operation)(*arguments)
        model(x)
    if operations != ["reset"]:
        close(model(x), expected)
    colora.unmerge(model)
    assert trains(model, x)


def test_a_model_made_in_inference_mode_can_be_adapted(x, tmp_path):
    with torch.inference_mode():
        model = net()
        expected = model(x)
    colora.inject(model)
    close(model(x), expected)
    with torch.inference_mode():
        colora.save_adapter(injected(), tmp_path)
        plain = net()
    colora.load_adapter(plain, tmp_path)
    close(plain(x), injected()(x))


def test_on_the_meta_device_shapes_work_and_values_are_asked_for(x, tmp_path):
    model = net().to("meta")
    colora.inject(model, ColoraConfig(pointwise_bias=True))
    assert model(x.to("meta")).shape == (2, 4, 10, 10)
    colora.merge(model)
    colora.unmerge(model)
    colora.reset(model)
    with pytest.raises(ValueError, match="on the meta device"):
        colora.save_adapter(model, tmp_path / "meta")
    source = injected(pointwise_bias=True)
    colora.save_adapter(source, tmp_path)
    with pytest.raises(ValueError, match="on the meta device"):
        colora.load_adapter(net().to("meta"), tmp_path)
    model.load_state_dict(source.state_dict(), assign=True)
    close(model(x), source(x))


# --- an averaged copy, and accelerate ---------------------------------------------------------------------------------


def test_timms_moving_average_follows_the_branches(x):
    timm = pytest.importorskip("timm.utils")
    model = injected()
    average = timm.ModelEmaV3(model, decay=0.5)
    before = model[0].depthwise.detach().clone()
    nn.init.ones_(model[0].depthwise)
    average.update(model)
    close(average.module[0].depthwise, 0.5 * before + 0.5)
    expected = average.module(x)
    colora.merge(average.module)
    close(average.module(x), expected)
    assert not model[0].merged


def test_accelerate_prepares_an_injected_model(x, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    model = injected()
    expected = model(x)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad]))
    close(model(x), expected)
    accelerator.backward(model(x).square().sum())
    optimizer.step()
    moved = model(x)
    assert not torch.allclose(moved, expected, atol=1e-4)
    colora.save_adapter(accelerator.unwrap_model(model), tmp_path)
    close(colora.load_adapter(net(), tmp_path)(x), moved)

"""Whole models: choosing convolutions, freezing, merge, reset, unload, disable, counts, compilation."""

import copy
import warnings

import pytest
import torch
from torch import nn

import colora
from colora import ColoraConfig, ColoraConv2d


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))) + x


class Small(nn.Module):
    """Stem, two blocks of which one is used twice, a 1x1 convolution and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first, self.second = Block(8), Block(8)
        self.again = self.first
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.squeeze(self.again(self.second(self.first(self.stem(x)))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Small().double().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def randomise(model, std=0.3):
    """Move every branch away from its start, as training would."""
    for module in model.modules():
        if isinstance(module, ColoraConv2d):
            for name, parameter in module.named_parameters():
                if name not in ("weight", "bias") and parameter.requires_grad:
                    nn.init.normal_(parameter, std=std)
    return model


def adapted(model):
    return [name for name, module in model.named_modules() if isinstance(module, ColoraConv2d)]


def test_default_takes_kernels_larger_than_1x1_in_place(model, x):
    expected = model(x)
    result = colora.inject(model)
    assert result is model
    assert adapted(model) == ["stem", "first.conv", "second.conv"]
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"target_modules": ["conv"]}, ["first.conv", "second.conv"]),
        ({"target_modules": ["first.conv", "stem"]}, ["stem", "first.conv"]),
        (
            {"target_modules": r"(first|again|squ.*)(\.conv)?", "exclude_modules": ["first", "again"]},
            ["first.conv", "squeeze"],
        ),
        ({"target_modules": ["squeeze"]}, ["squeeze"]),
        ({"target_modules": r".*\.conv"}, ["first.conv", "second.conv"]),
        ({"exclude_modules": ["second.conv"]}, ["stem", "first.conv"]),
        ({"exclude_modules": r".*\.conv"}, ["stem"]),
        ({"modules_to_save": ["second", "head"]}, ["stem", "first.conv"]),
    ],
    ids=str,
)
def test_selection(model, arguments, expected):
    assert adapted(colora.inject(model, ColoraConfig(**arguments))) == expected


def test_a_module_used_under_two_names_stays_one(model):
    colora.inject(model)
    assert model.again is model.first and model.again.conv is model.first.conv
    shared = nn.Sequential(*[nn.Conv2d(3, 3, 3)] * 2)
    colora.inject(shared, ColoraConfig(target_modules=["0"]))
    assert isinstance(shared[0], ColoraConv2d)
    both = nn.Sequential(*[nn.Conv2d(3, 3, 3)] * 2)
    colora.inject(both)
    assert both[0] is both[1]
    colora.merge_and_unload(both)
    assert both[0] is both[1] and type(both[0]) is nn.Conv2d


def test_freezes_all_but_branches_and_saved_modules(model):
    colora.inject(model, ColoraConfig(modules_to_save=["head"]))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        "stem.pointwise", "stem.depthwise", "stem.depthwise_bias", "first.conv.pointwise", "first.conv.depthwise",
        "second.conv.pointwise", "second.conv.depthwise", "head.weight", "head.bias",
    }  # fmt: skip
    # stem: 3*8 + 8*9 + 8; each block: 8*8 + 8*9 (no bias of its own); head: 4*2 + 2
    assert colora.trainable_parameters(model) == 104 + 2 * 136 + 10


def test_training_moves_the_branch_alone(model, x):
    colora.inject(model, ColoraConfig(modules_to_save=["head"]))
    before = copy.deepcopy(dict(model.named_parameters()))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the pointwise gradient is zero in the first step, while depthwise is zero
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"target_modules": ["first.cnov"]}, ValueError, "'first.cnov'.*near: 'first.conv'"),
        ({"target_modules": ["stem", "steem"]}, ValueError, "'steem'.*near: 'stem'"),
        ({"target_modules": r"frist\.conv"}, ValueError, r"matches no whole module name; near: 'first\.conv'"),
        ({"target_modules": ["head"]}, TypeError, "cannot adapt 'head': it is a Linear"),
        ({"target_modules": r"first.*"}, TypeError, "cannot adapt 'first': it is a Block"),
        ({"exclude_modules": ["nothing"]}, ValueError, "exclude_modules: 'nothing'"),
        ({"modules_to_save": ["haed"]}, ValueError, "modules_to_save: 'haed'.*near: 'head'"),
        ({"target_modules": ["stem"], "exclude_modules": ["stem"]}, ValueError, "takes away every module"),
        ({"target_modules": ["stem"], "modules_to_save": ["stem"]}, ValueError, "both a target and in modules_to_save"),
    ],
    ids=str,
)
def test_refused_selections_leave_the_model_alone(model, arguments, error, message):
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(error, match=message):
        colora.inject(model, ColoraConfig(**arguments))
    assert [type(module) for module in model.modules()] == kinds
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_other_refusals(model):
    with pytest.raises(TypeError, match="itself a Conv2d.*Sequential"):
        colora.inject(nn.Conv2d(1, 1, 3))
    with pytest.raises(ValueError, match="no torch.nn.Conv2d with a kernel larger than 1x1"):
        colora.inject(nn.Sequential(nn.Conv2d(3, 3, 1)))
    with pytest.raises(TypeError, match="config is a dict"):
        colora.inject(model, {"target_modules": ["stem"]})
    with pytest.raises(TypeError, match="model is a list"):
        colora.inject([model])
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="shares its kernel"):
        colora.inject(tied, ColoraConfig(target_modules=["0"]))
    colora.inject(model)
    with pytest.raises(ValueError, match="has CoLoRA layers already"):
        colora.inject(model)


@pytest.mark.parametrize("name", ["merge", "unmerge", "reset", "merge_and_unload"])
def test_without_layers_the_call_says_to_inject(model, name):
    with pytest.raises(ValueError, match="call colora.inject"):
        getattr(colora, name)(model)
    with pytest.raises(ValueError, match="call colora.inject"), colora.disable_adapter(model):
        pass


def test_merge_and_unmerge_keep_the_function_and_repeat_harmlessly(model, x):
    randomise(colora.inject(model))
    base = {name: value.clone() for name, value in model.named_parameters()}
    expected = model(x)
    colora.unmerge(model)
    for _ in range(2):
        colora.merge(model)
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-13)
    assert not torch.equal(model.stem.weight, base["stem.weight"])
    for _ in range(2):
        colora.unmerge(model)
    for name, value in model.named_parameters():
        assert torch.equal(value, base[name]), name


def test_merged_forward_is_the_plain_convolution(model, x):
    randomise(colora.inject(model))
    colora.merge(model)
    plain = nn.functional.conv2d(x, model.stem.weight, model.stem.bias, stride=2, padding=1)
    assert torch.equal(model.stem(x), plain)


def test_reset_after_merge_keeps_the_function_and_starts_anew(model, x):
    randomise(colora.inject(model))
    expected, old = model(x), model.stem.pointwise.clone()
    colora.merge(model)
    merged = model.stem.weight.clone()
    colora.reset(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(model.stem.weight, merged) and not model.stem.merged
    assert model.stem.depthwise.abs().max() == 0 and not torch.equal(model.stem.pointwise, old)
    colora.unmerge(model)
    assert torch.equal(model.stem.weight, merged)


def test_reset_alone_goes_back_to_the_base(model, x):
    expected = model(x)
    randomise(colora.inject(model))
    assert not torch.allclose(model(x), expected)
    colora.reset(model)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("merged", [False, True])
def test_merge_and_unload_gives_the_original_modules_and_keys(model, x, merged):
    keys = list(model.state_dict())
    randomise(colora.inject(model))
    expected = model(x)
    if merged:
        colora.merge(model)
    result = colora.merge_and_unload(model)
    assert result is model and list(model.state_dict()) == keys
    assert {type(module) for name, module in model.named_modules() if "conv" in name} == {nn.Conv2d}
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-13)
    fresh = Small().double().eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))
    colora.inject(copy.deepcopy(model))


@pytest.mark.parametrize("merged", [False, True])
def test_disable_adapter_gives_the_base(model, x, merged):
    expected_base = model(x)
    randomise(colora.inject(model))
    expected = model(x)
    if merged:
        colora.merge(model)
    with colora.disable_adapter(model):
        assert torch.equal(model(x), expected_base)
        with colora.disable_adapter(model):
            pass
        assert torch.equal(model(x), expected_base)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-13)
    with pytest.raises(KeyError), colora.disable_adapter(model):
        raise KeyError
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-13)


def test_merging_a_pointwise_bias_warns_once_with_the_largest_loss(model):
    randomise(colora.inject(model, ColoraConfig(pointwise_bias=True)))
    nn.init.constant_(model.second.conv.pointwise_bias, 5)
    nn.init.constant_(model.second.conv.depthwise, 0.5)
    with pytest.warns(UserWarning, match=r"up to 22\.5 .*'second\.conv'") as caught:  # 5 * 9 * 0.5
        colora.merge(model)
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        colora.merge(model)


def test_merging_without_a_loss_is_silent(model):
    colora.inject(model, ColoraConfig(pointwise_bias=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        colora.merge(model)


# Dynamo makes an autograd.Function object while it traces any custom Function, and torch warns of that.
traces_a_function = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@traces_a_function
def test_compiled_model_has_the_same_outputs_and_gradients(x):
    torch.manual_seed(0)
    model = randomise(colora.inject(nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU()).double()))
    learning = [p for p in model.parameters() if p.requires_grad]
    expected_output = model(x)
    expected = torch.autograd.grad(expected_output.square().sum(), learning)
    # One graph, no breaks. The backend without code generation: it needs no C++ compiler.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    output = compiled(x)
    torch.testing.assert_close(output, expected_output, rtol=1e-12, atol=1e-13)
    for one, other in zip(torch.autograd.grad(output.square().sum(), learning), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    colora.merge(model)
    torch.testing.assert_close(compiled(x), expected_output, rtol=1e-12, atol=1e-13)


@traces_a_function
def test_compiled_layer_under_autocast():
    torch.manual_seed(0)
    layer = randomise(colora.inject(nn.Sequential(nn.Conv2d(3, 4, 3))))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = layer(x), compiled(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)
    found.float().sum().backward()
    assert layer[0].pointwise.grad.dtype == torch.float32

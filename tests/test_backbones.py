"""Backbones: blocks, weights, heads; each equals its library's own network with the same weights."""

import copy
import sys

import pytest
import timm
import torch
import torchvision
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

import baselines
from baselines.backbones import WeightsError, classifier
from tests.conftest import SHARED

REAL = [
    ("resnet18_pqf_small", "resnet18"),
    ("resnet50_pqf_large", "resnet50"),
    ("squeezenet1_1_openvino_torch_input", "squeezenet1_1"),
    ("deit_tiny_patch16_224", "deit_tiny_patch16_224"),
]


def build(section, backbone="smallcnn", image_size=32, **options):
    settings = {"backbone": backbone, "weights": "random", **section}
    torch.manual_seed(0)
    return baselines.build("an-method", settings, num_classes=4, image_size=image_size, **options)


def images(count=4, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "backbone", ["smallcnn", "resnet18", "resnet50", "vgg16", "squeezenet1_1", "convnext_tiny", "efficientnet_b0"]
)
def test_blocks_cover_every_spatial_convolution_once(backbone):
    with torch.device("meta"):
        model = build({"family": "full"}, backbone, image_size=64)
    names = [n for b in range(1, 6) for n in model.convolutions((b, b))]
    expected = [
        n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1) and "head" not in n
    ]
    assert names == expected == model.convolutions((1, 5))


def test_vgg16_blocks_are_the_papers():
    with torch.device("meta"):
        model = build({"family": "full"}, "vgg16")
    assert [len(model.convolutions((b, b))) for b in range(1, 6)] == [2, 2, 3, 3, 3]


def test_features_equal_torchvisions_with_the_same_weights(tmp_path):
    torch.manual_seed(0)
    net = torchvision.models.resnet18().eval()
    path = tmp_path / "resnet18.safetensors"
    save_file(net.state_dict(), path)
    model = classifier(backbone="resnet18", weights=str(path), head="linear", num_classes=4, image_size=64).eval()
    net.fc = model.head[2]
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), net(x))


@pytest.mark.parametrize(
    "name, backbone, size, head",
    [
        ("resnet18.tv_in1k", "resnet18", 64, "fc"),  # timm's ResNets have torchvision's keys
        ("efficientnet_b0", "efficientnet_b0", 64, "classifier"),
        ("deit_tiny_patch16_224", "deit_tiny_patch16_224", 224, "head"),
        ("deit_tiny_patch16_224", "deit_tiny_patch16_224", 96, "head"),
    ],
)
def test_outputs_equal_timms_with_the_same_weights(tmp_path, name, backbone, size, head):
    torch.manual_seed(0)
    options = {"img_size": size} if backbone.startswith("deit") else {}
    net = timm.create_model(name, num_classes=4, **options).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = classifier(
        backbone=backbone, weights=str(tmp_path / "w.safetensors"), head="linear", num_classes=4, image_size=size
    ).eval()
    model.head[2].load_state_dict(net.get_submodule(head).state_dict())
    torch.testing.assert_close(model(images(2, size)), net(images(2, size)))


def test_convnexts_last_norm_is_pretrained_and_applied_before_pooling(tmp_path):
    """timm pools first; here the head decides how to pool, so every pixel is normalised."""
    torch.manual_seed(0)
    net = timm.create_model("convnext_tiny", num_classes=4).eval()
    nn.init.uniform_(net.head.norm.weight)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    path = str(tmp_path / "w.safetensors")
    model = classifier(backbone="convnext_tiny", weights=path, head="linear", num_classes=4, image_size=64).eval()
    model.head[2].load_state_dict(net.head.fc.state_dict())
    expected = net.head.fc(net.head.norm(net.forward_features(images(2, 64))).mean((2, 3)))
    torch.testing.assert_close(model(images(2, 64)), expected)


def test_position_embedding_is_resampled_to_the_image_size(tmp_path):
    """Its grid bicubically, as an image of C channels; the class token's embedding as it is."""
    torch.manual_seed(0)
    net = timm.create_model("deit_tiny_patch16_224")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = build({"family": "full"}, "deit_tiny_patch16_224", 96, weights=str(tmp_path / "w.safetensors"))
    token, grid = net.pos_embed[:, :1], net.pos_embed[:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True, align_corners=False)
    expected = torch.cat([token, grid.permute(0, 2, 3, 1).reshape(1, 36, 192)], dim=1)
    torch.testing.assert_close(model.backbone.pos_embed, expected)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
@pytest.mark.parametrize("policy, moves", [("frozen", False), ("updated", True)])
def test_the_batchnorm_policy_holds_for_every_library(backbone, policy, moves):
    model = build({"family": "head_only", "batchnorm": policy}, backbone, 64)
    before = copy.deepcopy(dict(model.named_buffers()))
    model.train()(images(4, 64))
    assert any(not torch.equal(b, before[name]) for name, b in model.named_buffers()) is moves


@pytest.mark.parametrize("backbone", ["convnext_tiny", "efficientnet_b0", "resnet50", "squeezenet1_1"])
@pytest.mark.parametrize(
    "section",
    [
        {"family": "colora"},
        {"family": "conv_lora", "rank": 2, "alpha": 4, "form": "kxk"},
        {"family": "bitfit"},
        {"family": "adapters"},
    ],
    ids=lambda section: section["family"],
)
def test_peft_of_every_cnn_starts_at_the_pretrained_function(backbone, section):
    """And leaves gradients on what trains alone. Adapters and branches go in without breaking the library's forward."""
    model, plain = build(section, backbone, 64).eval(), build({"family": "head_only"}, backbone, 64).eval()
    plain.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(model(images(2, 64)), plain(images(2, 64)), rtol=1e-4, atol=1e-5)
    nn.functional.cross_entropy(model(images(2, 64)), torch.tensor([0, 1])).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_vits_blocks_are_its_patch_embedding_and_quarters_of_its_layers():
    model = build({"family": "full"}, "deit_tiny_patch16_224")
    assert model.blocks[1] == ["backbone.patch_embed"]
    layers = [name for number in range(2, 6) for name in model.blocks[number]]
    assert layers == [f"backbone.blocks.{i}" for i in range(12)] + ["backbone.norm"]
    assert [len(model.blocks[number]) for number in range(2, 6)] == [3, 3, 3, 4]


def test_bitfit_trains_every_bias_of_a_vit():
    model = build({"family": "bitfit", "head": "linear"}, "deit_tiny_patch16_224")
    trained = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    # A layer: two norms, qkv, projection, two of the MLP; then the patch embedding's and the last norm's.
    assert trained == 12 * (192 + 192 + 576 + 192 + 768 + 192) + 192 + 192


@pytest.mark.parametrize(
    "section, words",
    [
        ({"family": "colora"}, r"blocks: \[2, 5\] of this backbone hold no convolution.*family 'lora'"),
        ({"family": "conv_lora", "rank": 2, "alpha": 4}, "hold no convolution larger than 1x1"),
        ({"family": "adapters"}, r"expected a map \(batch, channels, height, width\)"),
    ],
)
def test_what_needs_feature_maps_is_refused_on_a_vit(section, words):
    with pytest.raises(baselines.MethodError, match=f"an-method.*{words}"):
        build(section, "smallvit")


def save(folder, change):
    state = {
        k: v
        for k, v in classifier(backbone="smallcnn", weights="random", num_classes=4, image_size=32)
        .backbone.state_dict()
        .items()
    }
    change(state)
    path = folder / "w.safetensors"
    save_file(state, path)
    return str(path)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s.pop("block1.0.weight"), ["1 keys missing", "block1.0.weight"]),
        (lambda s: s.update(extra=torch.zeros(1)), ["1 unknown keys", "extra"]),
        (lambda s: s.update({"block1.0.weight": torch.zeros(2, 2)}), ["shapes differ", "block1.0.weight", "(2, 2)"]),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, change, words):
    path = save(tmp_path, change)
    with pytest.raises(WeightsError) as error:
        build({"family": "full"}, weights=path)
    for word in [path, "smallcnn", *words]:
        assert word in str(error.value)


def test_half_precision_weights_are_cast(tmp_path):
    path = save(tmp_path, lambda s: s.update({k: v.half() for k, v in s.items() if v.is_floating_point()}))
    assert {p.dtype for p in build({"family": "full"}, weights=path).parameters()} == {torch.float32}


def test_weights_are_never_a_silent_random_start(tmp_path):
    with pytest.raises(WeightsError, match="no weights given for smallcnn.*'random'"):
        build({"family": "full", "weights": None})
    with pytest.raises(WeightsError, match="no such file"):
        build({"family": "full", "weights": str(tmp_path / "none.safetensors")})
    (tmp_path / "bad.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        build({"family": "full", "weights": str(tmp_path / "bad.safetensors")})
    with pytest.raises(WeightsError, match="nobody publishes any for 'smallcnn'"):
        build({"family": "full", "weights": "imagenet"})


def test_imagenet_weights_offline_say_how_to_get_them(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="no route to host.*put the file under .*checkpoints") as error:
        build({"family": "full", "weights": "imagenet"}, "resnet18")
    assert "resnet18" in str(error.value)


def test_timms_weights_offline_say_how_to_get_them(monkeypatch):
    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise LocalEntryNotFoundError("cannot find the requested files in the local cache")
        return create(*args, **kwargs)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match="deit_tiny_patch16_224.fb_in1k: download by timm failed.*local cache") as e:
        build({"family": "full", "weights": "imagenet"}, "deit_tiny_patch16_224")
    assert "give a safetensors file with timm's keys" in str(e.value)


def test_weights_of_another_vit_are_refused(tmp_path):
    save_file(timm.create_model("deit_small_patch16_224").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="not those of deit_tiny_patch16_224.*shapes differ"):
        build({"family": "full"}, "deit_tiny_patch16_224", weights=str(tmp_path / "w.safetensors"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(baselines.MethodError, match="'an-method' needs the package 'timm'.*pip install timm"):
        build({"family": "full"}, "smallvit")


@pytest.mark.parametrize(
    "section, words",
    [
        ({"backbone": "resnet81"}, "backbone: no 'resnet81'.*resnet18"),
        ({"head": "deep"}, "head: found 'deep'"),
        ({"batchnorm": "off"}, "batchnorm: found 'off'"),
    ],
)
def test_a_wrong_model_setting_is_named(section, words):
    with pytest.raises(ValueError, match=words):
        build({"family": "full", **section})


@pytest.mark.parametrize(
    "backbone, size, words",
    [
        ("vgg16", 16, "image_size: the backbone cannot take 16 px"),
        (
            "deit_tiny_patch16_224",
            100,
            "image_size: found 100, deit_tiny_patch16_224 needs a multiple of its patch, 16",
        ),
    ],
)
def test_an_image_size_that_the_backbone_cannot_take_says_so(backbone, size, words):
    with pytest.raises(ValueError, match=words):
        build({"family": "full"}, backbone, image_size=size)


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no real weights beside the checkout")
@pytest.mark.parametrize("name, backbone", REAL)
@pytest.mark.parametrize("image_size", [64, 224])
def test_real_imagenet_weights_load(name, backbone, image_size):
    path = str(SHARED / "weights" / f"{name}.fp16.safetensors")
    model = build({"family": "head_only"}, backbone, weights=path, image_size=image_size)
    assert torch.isfinite(model.eval()(images(1, image_size))).all()

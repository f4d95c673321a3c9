"""Networks of timm and torchvision that no file names: cut into five blocks, trained, and with their own numbers."""

import pytest
import torch
import torchvision
from torch import nn

import baselines
from baselines.backbones.cutting import cut
from baselines.backbones.libraries import library
from baselines.backbones.nets import BACKBONES
from pipelines.training.gradcam import gradcam

# Name, side of the image, and what the head receives.
SWEPT = [
    ("timm/regnety_004", 64, (440, 2, 2)),
    ("timm/swin_tiny_patch4_window7_224", 224, (768, 1, 1)),
    ("timm/convnextv2_atto", 64, (320, 2, 2)),
    ("timm/cait_xxs24_224", 64, (192, 1, 1)),
    ("timm/hrnet_w18_small", 64, (2048, 2, 2)),
    ("timm/mixer_s32_224", 64, (512, 1, 1)),
    ("timm/mobilevit_s", 64, (640, 2, 2)),
    ("timm/beit_base_patch16_224", 224, (768, 1, 1)),
    ("timm/deit_tiny_distilled_patch16_224", 224, (192, 1, 1)),
    ("torchvision/alexnet", 64, (256, 1, 1)),
    ("torchvision/regnet_x_400mf", 64, (400, 2, 2)),
    ("torchvision/densenet121", 64, (1024, 2, 2)),
    ("torchvision/vit_b_32", 224, (768, 1, 1)),
    ("torchvision/swin_t", 64, (768, 1, 1)),
    ("torchvision/googlenet", 64, (1024, 1, 1)),
    ("torchvision/inception_v3", 128, (2048, 1, 1)),
]


def build(backbone, size, family="head_only", **options):
    section = {"family": family, "backbone": backbone, "weights": "random", "head": "linear", **options}
    return baselines.build("method", section, num_classes=3, image_size=size)


@pytest.mark.parametrize("name, size, shape", SWEPT, ids=[name for name, _, _ in SWEPT])
def test_a_network_nobody_named_comes_out_in_five_blocks(name, size, shape):
    with torch.device("meta"):
        model = build(name, size)
        assert model.feature_shape == shape
        assert list(model.blocks) == [1, 2, 3, 4, 5]
        names = [name for block in model.blocks.values() for name in block]
        assert len(set(names)) == len(names)
        for path, layer in model.backbone.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                within = [name for name in names if f"backbone.{path}.".startswith(f"{name}.")]
                assert len(within) == 1, f"{path} is in {within}"
        layer, as_map = model.last_map()
        seen = []
        layer.register_forward_hook(lambda _m, _i, out: seen.append(tuple(as_map(out).shape)))
        assert model(torch.empty(2, 3, size, size)).shape == (2, 3)
        assert len(seen) == 1 and len(seen[0]) == 4 and seen[0][2] == seen[0][3]


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet50", "squeezenet1_1"])
def test_cut_by_rule_the_named_networks_have_the_blocks_that_are_written_down(name):
    with torch.device("meta"):
        network, blocks = BACKBONES[name].make(224)
        assert cut(network, 224) == blocks


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0", "deit_tiny_patch16_224"])
def test_cut_by_rule_their_convolutions_and_layers_are_in_the_same_blocks(name):
    def places(network, blocks):
        leaves = [path for path, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
        return {path: [n for n, names in blocks.items() for name in names if f"{path}.".startswith(f"{name}.")]
                for path in leaves}  # fmt: skip

    with torch.device("meta"):
        network, blocks = BACKBONES[name].make(224)
        assert places(network, cut(network, 224)) == places(network, blocks)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121", "googlenet"])
def test_pooled_features_are_those_that_the_published_classifier_reads(name):
    torch.manual_seed(0)
    backbone = library(f"torchvision/{name}")
    network, _ = backbone.make(64)
    whole = torchvision.models.get_model(
        name, **({"aux_logits": False, "init_weights": False} if name == "googlenet" else {})
    )
    missing, unexpected = whole.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected and missing and all(key.startswith(backbone.classifier) for key in missing)
    read = []
    last = getattr(whole, "classifier", None) or whole.fc
    last.register_forward_pre_hook(lambda _m, inputs: read.append(inputs[0]))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole.eval()(x)
        features = network.eval()(x)
    torch.testing.assert_close(features.mean((2, 3)) if features.dim() == 4 else features, read[0].flatten(1))


@pytest.mark.parametrize(
    "backbone, family, options",
    [
        ("timm/resnet10t", "colora", {"blocks": [2, 5]}),
        ("torchvision/shufflenet_v2_x0_5", "adapters", {}),
        ("timm/test_vit", "full", {}),
    ],
)
def test_methods_train_on_it(backbone, family, options):
    torch.manual_seed(0)
    # With random weights statistics must move, or nothing comes out of fifty layers.
    model = build(backbone, 64, family, **options, batchnorm="updated").train()
    x, labels = torch.randn(6, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2])
    before = nn.functional.cross_entropy(model(x), labels).item()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    assert nn.functional.cross_entropy(model(x), labels).item() < before
    maps = gradcam(model, x)
    assert maps.isfinite().all() and maps.shape[1] == maps.shape[2] > 1


@pytest.mark.parametrize(
    "backbone, words",
    [
        ("timm/resnet1O", "timm has no 'resnet1O'.*did you mean"),
        ("torchvision/resnet5", "torchvision has no 'resnet5'.*resnet50"),
        ("keras/resnet50", "expected timm/NAME or torchvision/NAME"),
        ("torchvision/maxvit_t", "not divisible by partition size 7"),
    ],
)
def test_what_cannot_be_had_is_named(backbone, words):
    with pytest.raises(baselines.MethodError, match=words):
        build(backbone, 64)


def test_a_short_image_is_an_error_of_its_size():
    with torch.device("meta"), pytest.raises(baselines.MethodError, match="image_size: .*cannot take 8 px"):
        build("torchvision/inception_v3", 8)

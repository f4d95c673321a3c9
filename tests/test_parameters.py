"""The parameter table of the paper, and where it does not hold."""

import json

import pytest

from pipelines import parameters
from pipelines.profile import compose
from pipelines.training import counting

# arXiv:2505.18315 and its repository: head and all counts are sums over VGG16's layers.
PAPER = {
    "head-only": 869_124,
    "full": 15_583_812,
    "bitfit": 873_348,
    "bitfit-blocks2-5": 873_220,
    "conv-lora-r4": 900_100,
    "conv-lora-r8": 931_076,
    "conv-lora-r16": 993_028,
    "colora-blocks1-5": 2_545_860,
    "colora-blocks2-5": 2_540_292,
    "colora-blocks3-5": 2_513_156,
    "colora-blocks4-5": 2_341_636,
    "colora-block5": 1_670_916,
    "colora-blocks2-5-pointwise-bias": 2_544_388,
}


@pytest.fixture(scope="module")
def counts():
    return counting.count(compose("paper"))


@pytest.mark.parametrize("method", PAPER)
def test_trainable_counts_equal_the_papers(counts, method):
    assert counts[method]["trainable"] == PAPER[method]


def test_reported_pointwise_only_count_is_that_of_depthwise_only(counts):
    """The paper reports 0.91M for "pointwise only"; a pointwise update has 2.50M, a depthwise one 0.91M."""
    assert round(counts["colora-blocks2-5-depthwise-only"]["trainable"] / 1e6, 2) == 0.91
    assert round(counts["colora-blocks2-5-pointwise-only"]["trainable"] / 1e6, 2) == 2.50


def test_vgg16_convolutions_and_head_add_up(counts):
    assert counts["full"]["total"] == counts["head-only"]["total"] == 14_714_688 + 869_124


def test_table_and_json_name_every_method(capsys):
    assert parameters.main(["--profile", "oct1k", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == list(compose("oct1k").method)
    # VGG16's convolutions, and the head on their 512 x 2 x 2 map.
    total = 14_714_688 + (512 * 128 + 128) + (4 * 128 * 128 + 128) + (128 * 4 + 4)
    assert shown["full"].items() >= {"trainable": total, "total": total, "backbone": "vgg16"}.items()
    assert parameters.main(["--profile", "quick"]) == 0
    table = capsys.readouterr().out
    assert all(method in table for method in compose("quick").method)
    assert f"{counting.count(compose('quick'))['full']['total']:,}" in table


def test_methods_of_one_budget_train_as_many_parameters():
    """oct1k's breadth counted at the paper's size: CoLoRA's own budget, and that of Conv-LoRA of rank 8."""
    own, small = PAPER["colora-blocks2-5"], PAPER["conv-lora-r8"]
    budgets = {
        "colora-blocks2-5": own, "conv-lora-r216": own, "peft-lora-r45": own, "peft-dora-r45": own,
        "peft-loha-r23": own, "conv-adapter-full-width": own, "conv-lora-r8": small, "peft-lora-r2": small,
        "peft-dora-r2": small, "peft-loha-r1": small, "peft-lokr-r16": small, "conv-adapter-64th": small,
    }  # fmt: skip
    params = compose("oct1k")
    for method, budget in budgets.items():
        counted = counting.count_method(method, params.settings(method), num_classes=4, image_size=224)
        assert counted["trainable"] == pytest.approx(budget, rel=0.02), method


@pytest.mark.parametrize("method", ["full", "colora-blocks2-5"])
def test_classes_are_counted(method):
    """Each has a row of the paper's head: 128 weights and a bias."""
    params = compose("oct1k")
    params = params.model_copy(update={"method": {method: params.method[method]}})
    two, nine = (counting.count(params, num_classes=n)[method]["trainable"] for n in (2, 9))
    assert nine - two == 7 * 129


def smallcnn_macs(widths=(16, 32, 64, 96, 128), size=32):
    """Multiply-accumulates of the small CNN and its head, layer by layer."""
    total, channels = 0, 3
    for number, width in enumerate(widths):
        for _ in range(1 if number == 0 else 2):
            total += 9 * channels * width * size**2
            channels = width
        size //= 2 if number < len(widths) - 1 else 1
    return total + channels * 128 * size**2 + 128 * size**2 * 128 + 128 * 4


def test_flops_of_one_model_by_hand():
    """Two a multiply-accumulate. CoLoRA's update is in the kernel: it adds none; a 1x1 LoRA pair adds two products."""
    counts = counting.count(compose("quick"))
    assert counts["full"]["flops"] == counts["colora-blocks2-5"]["flops"] == 2 * smallcnn_macs()
    pairs, size, channels = 0, 16, 16
    for width in (32, 64, 96, 128):
        for _ in range(2):
            pairs += 8 * (channels + width) * size**2
            channels = width
        size //= 2
    assert counts["conv-lora-r8"]["flops"] - counts["full"]["flops"] == 2 * pairs


def test_known_networks_have_their_known_flops():
    """ResNet-18 at 224 px: 1.82G multiply-accumulates (torchvision states 1.814); MedMamba-T: 14,455,684 parameters."""
    counted = counting.count_method("a", {"family": "medmnist"}, num_classes=1000, image_size=224)
    assert round(counted["flops"] / 2e9, 3) == 1.814 and counted["total"] == 11_689_512
    counted = counting.count_method("a", {"family": "medmamba"}, num_classes=4, image_size=224)
    assert counted["total"] == counted["trainable"] == 14_455_684


@pytest.mark.parametrize("classes", ["0", "-1"])
def test_a_number_of_classes_that_cannot_be_is_told(capsys, classes):
    with pytest.raises(SystemExit):
        parameters.main(["--classes", classes])
    assert f"--classes: found {classes}, expected 1 or more" in capsys.readouterr().err


def test_unknown_profile_is_an_error_without_traceback(capsys):
    assert parameters.main(["--profile", "papr"]) == 1
    assert "did you mean 'paper'" in capsys.readouterr().err

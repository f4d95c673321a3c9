"""Numbers, names and colours as the figures show them."""

import colorsys
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from report import labels, layout, style
from tests import fake_results as fake


@pytest.mark.parametrize("value", [0.0412, 2.3, 78.13, 199.4, 1234.0])
def test_three_digits_round_trip(value):
    assert float(style.three_digits(value)) == pytest.approx(value, rel=0.005)
    assert len(style.three_digits(value).replace(".", "").lstrip("0")) >= 3


def test_names_wrap_at_hyphens_but_not_in_ranges():
    for name in fake.METHODS:
        lines = style.wrapped(name, 22).split("\n")
        assert "".join(lines) == name and max(map(len, lines)) <= 22
        assert not re.search(r"\d-\n\d", style.wrapped(name, 22))


def test_class_names_fit_their_ticks():
    assert layout.abbreviated("drusen") == "drusen"
    assert layout.abbreviated("choroidal neovascularization") == "CN"
    assert len(layout.abbreviated("pneumonoultramicroscopic")) == 10


def test_colors_differ_and_text_stands_out():
    kinds = [(group, family) for group, families in style.GROUPS.items() for family in families]
    kinds += [("CNN", "new"), ("CNN", "newer"), ("ViT", "colora")]
    colors = style.colors(kinds)
    assert len(set(colors.values())) == len(kinds)
    for color in colors.values():
        channels = [int(style.ink(color)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        assert 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05) > 4.4


def test_groups_other_than_cnns_have_a_hue_each():
    hues = {}
    for group in ("ViT", "state space", "KAN", "CNN from scratch"):
        own = [colorsys.rgb_to_hsv(*to_rgb(color))[0] * 360 for color in style.GROUPS[group].values()]
        assert max(own) - min(own) < 15
        hues[group] = np.mean(own)
    assert np.diff(sorted(hues.values())).min() > 15
    assert len(set(style.MARKERS.values())) == len(style.MARKERS) and set(style.MARKERS) == set(style.GROUPS)


@pytest.mark.parametrize(
    ("family", "backbone", "group"),
    [
        ("full", "vgg16", "CNN"),
        ("colora", "convnext_tiny", "CNN"),
        ("full", "deit_tiny_patch16_224", "ViT"),
        ("head-only", "smallvit", "ViT"),
        ("bitfit", "vit_small_patch16_224", "ViT"),
        ("lora", "smallvit", "ViT"),
        ("vim", "vim", "state space"),
        ("medmamba", "medmamba", "state space"),
        ("kan_head", "resnet50", "KAN"),
        ("medkan", "medkan", "KAN"),
        ("medmnist", "medmnist", "CNN from scratch"),
        ("new", "efficientnet_b0", "CNN"),
    ],
)
def test_groups_of_methods(family, backbone, group):
    assert style.group(family, backbone) == group


def test_kinds_are_ordered_by_group_then_family():
    kinds = [("KAN", "medkan"), ("CNN", "new"), ("ViT", "lora"), ("CNN", "colora"), ("ViT", "full"), ("CNN", "full")]
    assert style.in_order(kinds) == [
        ("CNN", "full"), ("CNN", "colora"), ("CNN", "new"), ("ViT", "full"), ("ViT", "lora"), ("KAN", "medkan"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text", "tick"),
    [
        (1_190_000_000, "1.19G", "1.19G"),
        (4e9, "4.00G", "4G"),
        (869_124, "869k", "869k"),
        (2e12, "2.00T", "2T"),
        (500, "500", "500"),
    ],
)
def test_large_counts_have_three_digits(value, text, tick):
    assert style.scaled(value) == text and style.scaled(value, trailing=False) == tick


@pytest.mark.parametrize("seed", range(4))
def test_names_of_points_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    n, area = 24, (6.5, 4.0)
    points = np.c_[rng.choice([1.0, 2.5, 2.55, 5.5], n) + rng.normal(0, 0.1, n), rng.normal(3.0, 0.3, n).clip(0.2, 3.8)]
    sizes = np.c_[rng.uniform(0.3, 1.6, n), np.full(n, 0.125)]
    corners = labels.place(points, sizes, np.c_[points[:, 1] - 0.2, points[:, 1] + 0.2], area)
    assert (corners >= 0).all() and (corners + sizes <= np.array(area)).all()
    for i in range(n):
        for j in range(i):
            apart = (corners[i] >= corners[j] + sizes[j]).any() or (corners[j] >= corners[i] + sizes[i]).any()
            assert apart, (i, j)


def test_names_of_a_crowded_column_are_listed_in_its_order():
    rng = np.random.default_rng(0)
    area = (6.5, 5.0)
    points = np.c_[np.full(20, 3.5), rng.normal(4.5, 0.2, 20).clip(0, 4.9)]
    points = np.r_[points, [[1.0, 2.0]]]
    sizes = np.c_[rng.uniform(0.3, 2.0, 21), np.full(21, 0.125)]
    corners = labels.place(points, sizes, np.c_[points[:, 1] - 0.2, points[:, 1] + 0.2], area)
    (column,) = labels.crowded_columns(points[:, 0])
    assert sorted(column) == list(range(20))
    listed = corners[:20][np.argsort(points[:20, 1], kind="stable")]
    assert len(set(listed[:, 0])) == 1 and listed[0, 0] > 3.5
    assert np.diff(listed[:, 1]).min() >= 0.125
    assert (corners >= 0).all() and (corners + sizes <= np.array(area)).all()


def test_a_list_of_names_covers_no_other_point():
    points = np.c_[np.full(8, 3.5), np.linspace(1, 3, 8)]
    others = np.c_[[4.5, 2.5], points[[2, 5], 1]]  # on either side, where the lists would stand
    points, sizes = np.r_[points, others], np.full((10, 2), [1.2, 0.125])
    corners = labels.place(points, sizes, np.c_[points[:, 1], points[:, 1]], (7.0, 4.0))
    inside = (points[:, None] > corners[None]) & (points[:, None] < (corners + sizes)[None])
    assert not inside.all(2).any()

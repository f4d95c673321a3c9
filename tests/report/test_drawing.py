"""Colours that everybody tells apart, names and limits of axes, and the files of figures."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

import baselines
from pipelines.files import fonts
from report import drawing, text
from tests import fake_results as fake

# Machado, Oliveira & Fernandes 2009, table 1 at severity 1.0: matrices on linear RGB.
DEFICIENCIES = {
    "normal sight": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(rgb):
    rgb = np.asarray(rgb)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(colors, matrix):
    """The colours as somebody with the deficiency sees them, in CIELAB."""
    light = np.clip(linear([to_rgb(color) for color in colors]) @ np.array(matrix).T, 0, 1)
    return rgb2lab(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_kinds_are_told_apart_with_any_colour_vision(deficiency):
    lab = seen(drawing.HUES.values(), DEFICIENCIES[deficiency])
    first, second = np.triu_indices(len(lab), 1)
    assert deltaE_ciede2000(lab[first], lab[second]).min() >= 11.5


def test_the_colours_before_would_not_pass():
    """MedMamba's and KAN's old colours, which a deuteranope took for one another."""
    lab = seen(["#E69F00", "#B5A900"], DEFICIENCIES["deuteranopia"])
    assert deltaE_ciede2000(lab[0], lab[1]) < 11.5


def test_families_choose_among_the_hues():
    for name, facts in baselines.families().items():
        colors = [facts.colours] if isinstance(facts.colours, str) else facts.colours.values()
        assert set(colors) <= set(drawing.HUES.values()), name


@pytest.mark.parametrize(
    ("family", "backbone", "kind"),
    [
        ("full", "vgg16", drawing.FULL), ("colora", "convnext_tiny", drawing.COLORA), ("bitfit", "vgg16", drawing.PEFT),
        ("full", "deit_tiny_patch16_224", drawing.VIT), ("head_only", "timm/vit_small_patch16_224", drawing.VIT),
        ("lora", "deit_tiny_patch16_224", drawing.VIT), ("vim", "vim", drawing.STATE_SPACE),
        ("medkan", "medkan", drawing.KAN),
        ("kan_head", "resnet50", drawing.KAN), ("medmnist", "medmnist", drawing.SCRATCH),
        ("new", "resnet18", drawing.PEFT),
    ],
)  # fmt: skip
def test_kinds_of_methods(family, backbone, kind):
    found = drawing.looks(family, backbone)
    assert found.kind == kind and found.color == drawing.HUES[kind]


def test_a_new_family_keeps_the_colour_that_it_states(tmp_path, monkeypatch):
    facts = baselines.Family(label="new", group="KAN", colours="#123456", kind="network")
    monkeypatch.setattr(baselines, "families", lambda: {"new": facts})
    assert drawing.looks("new", "new") == drawing.Looks("KAN", "new", "#123456")
    assert drawing.present(["new", drawing.KAN, drawing.FULL]) == [drawing.FULL, drawing.KAN, "new"]


def test_text_in_any_hue_stands_out_from_white():
    for color in drawing.HUES.values():
        assert 1.05 / (linear(to_rgb(drawing.ink(color))) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.45
    assert len(set(drawing.MARKERS.values())) == len(drawing.MARKERS) and set(drawing.MARKERS) == set(drawing.HUES)


def test_names_wrap_at_hyphens_but_not_in_ranges():
    for name in fake.METHODS:
        lines = text.wrapped(name, 22).split("\n")
        assert "".join(lines) == name and max(map(len, lines)) <= 22
        assert not re.search(r"\d-\n\d", text.wrapped(name, 22))


def test_class_names_fit_their_ticks():
    assert text.abbreviated("drusen") == "drusen"
    assert text.abbreviated("choroidal neovascularization") == "CN"
    assert len(text.abbreviated("pneumonoultramicroscopic")) == 10
    assert text.abbreviated("\u7cd6\u5c3f\u75c5") == "\u7cd6\u5c3f\u75c5"  # six Latin letters wide
    assert text.abbreviated("\u7cd6\u5c3f\u75c5\u6027\u9ec4\u6591") == "\u7cd6\u5c3f\u75c5\u6027\u2026"


def test_no_two_classes_are_called_alike():
    names = [f"diagnosis number {place} of the atlas" for place in range(40)]
    short = text.short_names(names)
    assert list(short) == names and len(set(short.values())) == 40 and short[names[6]] == "#7"
    assert text.short_names(["cnv", "choroidal neovascularization"]) == {
        "cnv": "cnv", "choroidal neovascularization": "CN",
    }  # fmt: skip


def test_a_script_that_no_font_has_is_told_once_and_one_that_a_font_has_is_drawn(tmp_path, monkeypatch, recwarn):
    name = "\u6b63\u5e38"
    monkeypatch.setattr(fonts, "families", lambda: ("DejaVu Sans",))
    assert fonts.lacking(["drusen", name]) == name and fonts.warning(["drusen \u00e9 $x$"]) is None
    assert f"no installed font has {' '.join(name)};" in fonts.warning([name])
    with drawing.look():
        figure, axis = plt.subplots()
        axis.set_title(name)
    drawing.save(figure, tmp_path / "boxes")
    assert not recwarn.list  # matplotlib's own would be one a character, figure and format
    monkeypatch.undo()
    if len(fonts.families()) == 1:
        pytest.skip("no Chinese font is installed (Debian: fonts-noto-cjk)")
    assert fonts.warning([name]) is None
    with drawing.look():
        figure, axis = plt.subplots()
        axis.set_title(name)
    drawing.save(figure, tmp_path / "signs")
    assert (tmp_path / "signs.png").read_bytes() != (tmp_path / "boxes.png").read_bytes()


def test_dollars_in_a_name_are_no_formula(tmp_path):
    with drawing.look():
        figure, axis = plt.subplots()
        axis.set_title("$a$ and $\\b")  # as a formula it could not be parsed
    assert all(file.stat().st_size for file in drawing.save(figure, tmp_path / "title"))


@pytest.mark.parametrize("values", [[0.95, 0.96, 0.97, 1.0], [0.5], [0.3, 0.3], [0.9, np.nan, 0.92]])
def test_limits_hold_all_values_that_stand_together(values):
    low, high = drawing.limits(values)
    assert low < np.nanmin(values) and np.nanmax(values) < high < 1.1


def test_limits_cut_what_lies_far_below():
    low, _ = drawing.limits([0.25, 0.9, 0.92, 0.94, 0.95])
    assert 0.25 < low < 0.9
    assert drawing.limits([np.nan]) == (0.0, 1.0)


def test_dumbbells_stand_at_their_values():
    frame = pd.DataFrame({"full": [0.9, 0.8], "hollow": [0.7, 0.85], "change": [-0.2, 0.05], "lo": np.nan}, ["a", "b"])
    methods = pd.DataFrame({"color": ["red", "blue"], "ink": "black"}, ["a", "b"])
    _, (axis,) = drawing.dumbbells({"": frame}, methods, "Accuracy", ("here", "there"))
    assert [own.get_text() for own in axis.texts] == ["\N{MINUS SIGN}20.0", "+5.0"]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    plt.close()
    drawn = {(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() == "white") for line in dots}
    assert drawn == {(0.9, 0, False), (0.7, 0, True), (0.8, 1, False), (0.85, 1, True)}


def test_rows_stand_from_the_top_down_in_their_panels():
    with drawing.look():
        figure, axes = drawing.stacked({"one": ["a", "b"], "two": ["c"]}, dict.fromkeys("abc", "red"), "x")
    assert [[label.get_text() for label in axis.get_yticklabels()] for axis in axes] == [["a", "b"], ["c"]]
    bottom, top = axes[0].get_ylim()
    assert top < 0 < 1 < bottom and [axis.get_title(loc="left") for axis in axes] == ["one", "two"]
    plt.close(figure)


def test_files_bear_no_date_and_pictures_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "LARGEST", 12_000)
    open_before = plt.get_fignums()  # by other tests, which draw without saving
    noise = np.random.default_rng(0).integers(0, 256, (60, 60))

    def draw(where):
        with drawing.look():
            figure, axis = plt.subplots(figsize=(3, 3))
            axis.imshow(noise, cmap="plasma")
        return drawing.save(figure, tmp_path / where / "noise")

    first, second = draw("a"), draw("b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[2].stat().st_size <= 12_000
    with Image.open(first[2]) as picture:
        assert 3 * drawing.FINENESS[-1] <= picture.width < 3 * drawing.FINENESS[0]  # coarser than it would be
    assert plt.get_fignums() == open_before


def test_a_picture_full_of_heat_maps_keeps_the_colour_of_a_name(tmp_path):
    blue = drawing.HUES["other adaptation"]  # which no heat map has
    with drawing.look():
        figure, axes = plt.subplots(2, 2, figsize=(3, 3))
        for number, axis in enumerate(axes.flat):
            axis.imshow(np.random.default_rng(number).random((60, 60)), cmap="inferno")
        figure.suptitle("lora", color=blue)
    _, _, png = drawing.save(figure, tmp_path / "maps")
    with Image.open(png) as picture:
        pixels = np.asarray(picture.convert("RGB"), float).reshape(-1, 3)
    assert np.abs(pixels - 255 * np.array(to_rgb(blue))).max(1).min() <= 8


def test_a_panel_goes_on_in_further_ones_under_short_titles():
    names = [f"m{number}" for number in range(50)]
    parts = drawing.parted({"other-patients": names, "few": names[:3]})
    assert [name for part in list(parts.values())[:-1] for name in part] == names
    assert max(map(len, parts.values())) <= drawing.MOST
    assert list(parts) == [
        "other-patients", "other-patients, continued", "other-patients, continued (3)",
        "other-patients, continued (4)", "other-patients, continued (5)", "few",
    ]  # fmt: skip

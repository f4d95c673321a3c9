"""The report of a profile with methods of every kind: their order, their start, their figures."""

import json
import shutil

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.transforms import Bbox

from report import figures, layout, ranks, style, tables
from report.page import about_data, render
from report.results import counterparts, load
from tests import fake_results as fake
from tests import test_report
from tests.test_report import read_rows, write_results

built = test_report.built


def test_the_papers_pointwise_only_stands_beside_depthwise_only(tmp_path, monkeypatch):
    methods = ["colora-blocks2-5-pointwise-only", "colora-blocks2-5-depthwise-only"]
    results = load(write_results(tmp_path, methods, monkeypatch, seeds=(0,)))
    found = counterparts(results)
    assert found[["method", "accuracy", "trainable_m"]].to_numpy().tolist() == [[methods[1], 0.933, 0.91]]
    assert "it is a depthwise-only one (910,084" in tables.beside_paper(results).note


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Results of all made-up methods on all kinds of networks: (results folder, report folder), figures not encoded."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        where = tmp_path_factory.mktemp("many")
        methods = [*reversed(fake.MORE), *fake.METHODS]
        results = write_results(where, methods, monkeypatch, source="medmnist", seeds=(0,))
        tables.write_all(load(results), where / "report" / "tables")
        return results, where / "report"


def test_rows_stand_by_group(many):
    methods = load(many[0]).methods
    assert list(dict.fromkeys(methods.group)) == list(style.GROUPS)
    assert methods.group["vit-head"] == "ViT" and methods.group["kan-head"] == "KAN"
    assert methods.index[methods.group == "ViT"].tolist() == [
        "vit-full", "vit-head", "vit-bitfit", "vit-lora-mlp", "vit-lora",
    ]  # fmt: skip
    assert methods.color["vit-full"] != methods.color["full"]
    heights = layout.rows(methods)
    gap = {after: heights[before] - heights[after] for before, after in zip(methods.index, methods.index[1:])}
    assert gap["vit-full"] > 1 and gap["colora-blocks1-5"] == 1 and gap["vit-head"] == 1


def test_where_an_method_started_is_told(many):
    results, out = many
    rows = {row["method"]: row for row in read_rows(out / "tables" / "main.csv")}
    assert (rows["full"]["start"], rows["full"]["weights"]) == ("pretrained", "imagenet")
    scratch = {method for method, row in rows.items() if row["start"] == "from scratch"}
    assert scratch == {"medmamba", "vim", "medkan", "medmnist-resnet18", "medmnist-resnet18-28"}
    lines = (out / "tables" / "main.md").read_text().splitlines()
    assert lines[0].startswith("| Method | Backbone | Start | Trained |")
    assert any(line.startswith("| vim | vim | from scratch | 6,900,000 |") for line in lines)
    told = about_data(load(results))
    assert "Weights: `imagenet`. Trained from scratch, with random initial weights: medmamba," in told
    assert all(method in told for method in scratch) and "`random`" not in told


def test_no_pretrained_method_at_all_is_told(tmp_path, monkeypatch):
    results = load(write_results(tmp_path, ["vim", "medkan"], monkeypatch, seeds=(0,)))
    assert about_data(results).endswith("Trained from scratch, with random initial weights: every method.")


def test_flops_are_told(many):
    results, out = many
    rows = {row["method"]: row for row in read_rows(out / "tables" / "cost.csv")}
    assert float(rows["resnet50-full"]["flops"]) == 8_180_000_000
    text = (out / "tables" / "cost.md").read_text()
    assert "| FLOPs |" in text.splitlines()[0] and "| 8.18G |" in text and "| 4.00G |" in text
    assert "floating-point operations of one image's forward pass, two a multiply-accumulate" in text
    figure = figures.flops(load(results))
    (axis,) = figure.axes
    marks = [line for line in axis.lines if len(line.get_xdata()) == 1]
    assert len(marks) == len(rows) and axis.get_xlabel().startswith("Forward FLOPs")
    expected = sorted(float(row["flops"]) for row in rows.values())
    assert sorted(line.get_xdata()[0] for line in marks) == pytest.approx(expected, rel=0.2)  # those alike side by side
    assert len({line.get_xdata()[0] for line in marks}) == len(marks)
    assert {line.get_marker() for line in marks} == set(style.MARKERS.values())
    plt.close(figure)


def test_names_in_scatter_plots_do_not_overlap(many):
    results = load(many[0])
    for draw in (figures.parameters, figures.flops):
        with plt.rc_context(style.RC):
            figure = draw(results)
            renderer = figure.canvas.get_renderer()
            boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
            plt.close(figure)
        assert len(boxes) == len(results.methods)
        # Line heights leave room above and below the letters, which may meet.
        inner = [Bbox.from_extents(b.x0, b.y0 + 0.25 * b.height, b.x1, b.y1 - 0.25 * b.height) for b in boxes]
        assert not [(i, j) for i in range(len(inner)) for j in range(i) if inner[i].overlaps(inner[j])], draw.__name__


def test_results_made_before_flops_were_counted(built, tmp_path):
    results = shutil.copytree(built[0], tmp_path / "fake", ignore=shutil.ignore_patterns("runs"))
    summary = json.loads((results / "summary.json").read_text())
    (results / "summary.json").write_text(
        json.dumps({method: {k: v for k, v in own.items() if k != "flops"} for method, own in summary.items()})
    )
    pd.read_csv(results / "runs.csv").drop(columns="flops").to_csv(results / "runs.csv", index=False)
    found = load(results)
    assert figures.flops(found) is None
    cost = tables.cost(found)
    assert "FLOPs" not in cost.text and "FLOPs" not in cost.note
    assert "forward FLOPs" not in render(found, {"cost": cost}, [])


def test_references_on_other_backbones_are_named(many, built):
    lines = (many[1] / "tables" / "comparisons.md").read_text().splitlines()
    for method, against in (("vit-lora", ["vit-full", "vit-head"]), ("bitfit", ["full", "head-only"])):
        assert [line.split(" | ")[1] for line in lines if line.startswith(f"| {method} |")] == against
    note = lines[-1]
    assert (
        "no such method on their backbone, " in note and "medmamba" in note and "differ as well as the method" in note
    )
    assert note.endswith("same backbone: efficientnet-colora-blocks2-5, convnext-colora-blocks2-5.")
    plain = (built[1] / "tables" / "comparisons.md").read_text()
    assert "From scratch" not in plain and "Without a reference" not in plain


def test_curves_stand_before_those_of_their_backbone(many):
    methods = load(many[0]).methods

    def behind(backbone):
        return figures._behind(methods, methods[methods.backbone == backbone].iloc[0])

    assert behind("deit_tiny_patch16_224") == {"full": "vit-full", "head-only": "vit-head"}
    first = methods.index[methods.family == "full"][0]
    assert behind("vim")["full"] == behind("convnext_tiny")["full"] == first


def test_networks_quoted_from_other_papers_find_their_figures(many):
    results = load(many[0])
    found = counterparts(results).set_index("method")
    stated = found.loc[["medmamba", "medkan", "medmnist-resnet18", "medmnist-resnet18-28"]]
    assert stated.backbone.tolist() == ["medmamba-t", "medkan-s", "resnet18", "resnet18"]
    assert stated.accuracy.tolist() == [0.918, 0.921, 0.763, 0.743]
    assert stated.image_size.tolist()[2:] == [224, 28]
    assert stated.source.str.contains("resolution and protocol").all()
    assert not found.index.str.startswith(("vit", "vim", "kan")).any()  # the paper has no figure for these
    table = tables.beside_paper(results)
    settings = dict(zip(table.raw.method, table.text["Paper's setting"], strict=True))
    assert settings["medmamba"] == "medmamba-t, octmnist"
    assert settings["medmnist-resnet18-28"] == "resnet18, octmnist at 28 px"
    assert settings["bitfit"] == "vgg16, octmnist at 224 px, balanced"
    assert "medmamba, medkan, medmnist-resnet18-28, medmnist-resnet18 come from other papers" in table.note
    figure = figures.beside_paper(results)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "quoted from another paper" in legend
    plt.close(figure)


def test_one_seed_gives_no_ranks(many):
    found = load(many[0])
    assert ranks.critical_difference(found) is None and ranks.caption(found) == ""

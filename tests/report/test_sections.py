"""Every section of a made-up profile: it says what the results hold, and draws it where it should stand."""

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from report import drawing, sections
from report.pages import charts
from report.sections import GROUPS, accuracy, beside_paper, confusion, forest, pareto


@pytest.fixture(scope="module")
def built(results):
    before = plt.get_fignums()
    made = sections.build(results)
    assert plt.get_fignums() == before  # pyplot warns at 20 open figures, and a report may have more
    return {section.name: section for section in made}


def test_every_file_is_made_but_those_that_the_results_hold_nothing_for(built):
    names = {module.__name__.rpartition(".")[2] for module in sections.found()}
    assert names - set(built) == {"missing", "gradcam", "label_efficiency", "layer_costs", "learning_rates"}


def test_sections_are_told_in_words(built):
    for section in built.values():
        assert section.group in GROUPS and section.title.endswith("."), section.name
        assert "nan" not in (section.title + section.caption + section.alt).lower().split(), section.name
        assert not re.search(r"[{}]|None", section.title + section.caption + section.alt), section.name
        if section.figure is not None:
            assert section.alt.startswith(section.title) and section.caption, section.name
            width, height = section.figure.get_size_inches()
            assert width == pytest.approx(drawing.WIDTH) and height < 14, section.name


def test_figures_fit_and_are_small(built, tmp_path):
    for name in ("forest", "pareto", "confusion"):
        section = built[name]
        section.figure.draw_without_rendering()
        box = section.figure.get_tightbbox()
        assert box.x0 > -0.02 and box.x1 < drawing.WIDTH + 0.02, name
        files = drawing.save(section.figure, tmp_path / name)
        assert files[2].stat().st_size <= 120_000


def test_sections_stand_by_group_and_order(built):
    made = list(built.values())
    places = [GROUPS.index(section.group) for section in made]
    assert places == sorted(places) and made[0].name == "forest"


def test_a_figure_is_one_new_file(results, tmp_path, monkeypatch):
    (tmp_path / "added_here.py").write_text(
        "from report.sections import Section\n"
        "GROUP, ORDER = 'Cost', 1\n"
        "def section(results):\n    return Section(f'{len(results.methods)} methods.', 'How.')\n"
    )
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    order = [module.__name__.rpartition(".")[2] for module in sections.found()]
    assert order.index("added_here") < order.index("pareto")
    monkeypatch.setattr(sections, "__path__", [str(tmp_path)])
    (added,) = sections.build(results)
    assert (added.name, added.group, added.title) == ("added_here", "Cost", "8 methods.")


def test_the_forest_shows_the_intervals_that_the_verdicts_rest_on(results, built):
    rows = results.declared_contrasts.dropna(subset="difference").set_index("against")
    axis = built["forest"].figure.axes[0]
    names = [label.get_text().replace("\n", "") for label in axis.get_yticklabels()]
    assert set(names) == set(rows.index)
    lines = {
        line.get_ydata()[0]: line.get_xdata()
        for line in axis.lines
        if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2
    }
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"}
    for place, name in enumerate(names):
        assert lines[place] == pytest.approx([100 * rows.lo[name], 100 * rows.hi[name]])
        assert dots[place] == pytest.approx(100 * rows.difference[name])
    for verdict, word in (("supported", "more accurate than"), ("contradicted", "less accurate than")):
        assert (word in built["forest"].title) == (rows.higher == verdict).any()


def test_accuracies_are_sorted_within_their_panels(results, built):
    panels = accuracy.panels(results.whole, results.declared[:1])
    assert sorted(name for names in panels.values() for name in names) == sorted(results.whole.index)
    for names in panels.values():
        means = results.methods.acc_mean[names].tolist()
        assert means == sorted(means, reverse=True)
    best = results.methods.acc_mean.idxmax()
    assert built["accuracy"].title.startswith(f"{best} has the highest mean, {results.methods.acc_mean[best]:.3f}")


@pytest.mark.parametrize(
    ("method", "reference", "ends", "told"),
    [("best", "bitfit", (-0.01, 0.12), True), ("bitfit", "best", (-0.12, 0.01), True),
     ("bitfit", "best", (-0.12, -0.01), False),  # told apart from the best
     ("bitfit", "full", (-0.12, 0.01), False)],  # compared with another one
)  # fmt: skip
def test_a_method_is_as_good_as_the_best_only_where_a_comparison_says_so(results, method, reference, ends, told):
    method, reference = (results.methods.acc_mean.idxmax() if name == "best" else name for name in (method, reference))
    row = {"data": "test", "metric": "accuracy", "method": method, "reference": reference}
    pairs = pd.DataFrame([{**row, "lo": ends[0], "hi": ends[1]}])
    share = 100 * results.methods.trainable["bitfit"] / results.methods.total["bitfit"]
    words = f"; bitfit is not told apart from it ({results.methods.acc_mean['bitfit']:.3f}) and trains {share:.1f} %"
    found = accuracy.finding(results.methods, pairs)
    assert (words in found) == told and found.endswith("network." if told else f", of {len(results.methods)} methods.")


def test_second_runs_are_named_beside_the_methods_they_repeat(results):
    methods = results.methods.assign(second=results.methods.index == "bitfit")
    told = "Second runs, which count as no methods of their own: bitfit."
    changed = replace(results, methods=methods)
    assert told in accuracy.caption(changed) and told in charts.methods(changed)["note"]
    assert "Second runs" not in accuracy.caption(results) + charts.methods(results)["note"]


def test_one_contrast_alone_is_told_and_drawn(results, tmp_path):
    """pandas takes a list of one for a list of keys; a figure as low as one row has no room for its axis and legend."""
    section = forest.section(replace(results, contrasts=results.contrasts[:1]))
    assert "('" not in section.caption and section.caption.endswith("the margin of non-inferiority.")
    drawing.save(section.figure, tmp_path / "forest")  # warnings are errors


def test_many_methods_are_parted_into_panels():
    names = [f"m{i}" for i in range(31)]
    methods = pd.DataFrame(
        {
            "acc_mean": np.linspace(0.9, 0.6, 31),
            "family": ["colora"] * 8 + ["full"] * 23,
            "backbone": ["a"] * 16 + ["b"] * 15,
        },
        index=names,
    )
    panels = accuracy.panels(methods, ["m0"])
    assert max(map(len, panels.values())) <= drawing.MOST
    assert (
        panels["CoLoRA on a"] == names[:8]
        and "m0" in panels["Ways to train a"]
        and "m1" not in panels["Ways to train a"]
    )
    assert list(panels)[-1] == "Other networks, continued"


def test_points_stand_exactly_at_their_values(results, built):
    points = pareto.collected(results.whole, results.cost)
    for axis, column in zip(built["pareto"].figure.axes, pareto.AXES):
        low = axis.get_ylim()[0]
        own = points[points[column].notna() & (points.acc_mean >= low)]
        drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if len(line.get_xdata()) == 1}
        assert drawn == set(zip(own[column], own.acc_mean))


def test_costs_are_drawn_beside_full_fine_tuning(built):
    axis = built["cost_ratios"].figure.axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["head-only", "colora-blocks2-5", "colora-blocks2-5-peft-lora-r8"]
    dots = {line.get_ydata()[0]: line for line in axis.lines if line.get_marker() == "o"}
    assert [dots[place].get_xdata()[0] for place in range(3)] == [0.3, 0.8, 0.9]
    assert dots[2].get_markerfacecolor() == "white" and axis.get_xscale() == "log"
    assert "80 % of the time and 60 % of the memory" in built["cost_ratios"].title
    assert "power of 0.80" in built["cost_growth"].title


def test_confusion_shows_the_declared_methods(results, built):
    names = results.leading(confusion.SHOWN)
    assert len([axis for axis in built["confusion"].figure.axes if axis.get_visible()]) == len(names)


def test_other_patients_are_told(results, built):
    section = built["external"]
    best = results.external.set_index("method").balanced_accuracy.idxmax()
    assert (
        f"{best} does best" in section.title
        and "clinic-b" in section.title
        and "60 images of 30 patients" in section.caption
    )
    assert len(section.tables[0].text) == len(results.methods)


def test_the_papers_gains_stand_beside_ours(results, built):
    rows = beside_paper.differences(results).set_index(["method", "base"])
    own = rows.loc["colora-blocks2-5", "full"]
    paper = results.paper[(results.paper.training_set == "full") & (results.paper.backbone == "vgg16")]
    paper = paper[paper.dataset == "octmnist"].drop_duplicates("method").set_index("method").accuracy
    assert own.paper == pytest.approx(paper["colora-blocks2-5"] - paper["full"]) == pytest.approx(0.041)
    means = results.methods.acc_mean
    assert own.difference == pytest.approx(means["colora-blocks2-5"] - means["full"], abs=1e-5)
    assert not {name for name, _ in rows.index} & {"full", "head-only", "vit-full"}


def test_what_separates_our_figures_from_the_papers_is_told(results):
    other = "where the paper mostly has vgg16"
    assert "on other data than OCTMNIST" in beside_paper.comparability(results)
    assert other not in beside_paper.comparability(results)
    methods = results.methods.copy()
    methods.loc["head-only", "backbone"] = "resnet50"  # the paper has head-only on it too
    assert other not in beside_paper.comparability(replace(results, methods=methods))
    methods["backbone"] = "resnet18"
    assert f"with resnet18 {other}" in beside_paper.comparability(replace(results, methods=methods))


def test_the_papers_memory_stands_beside_ours(results, built):
    """The paper's table: 3.320, 2.316 and 3.172 GiB. conftest's COSTS has 800, 240 and 480 MiB."""
    (table,) = (own for own in built["beside_paper"].tables if own.name == "beside_paper_memory")
    rows = table.raw.set_index("method")
    assert list(rows.index) == ["full", "head-only", "colora-blocks2-5"]
    assert rows.paper_gib.tolist() == [3.32, 2.316, 3.172]
    assert rows.measured_gib.tolist() == [800 / 1024, 240 / 1024, 480 / 1024]
    assert rows.paper_ratio.tolist() == pytest.approx([1, 2.316 / 3.32, 3.172 / 3.32])
    assert rows.measured_ratio.tolist() == [1, 0.3, 0.6]
    nothing = replace(results, cost=results.cost[results.cost.role == "reference"])
    assert beside_paper.memory(nothing) == []

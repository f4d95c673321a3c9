"""The report's section on label efficiency: its figure and tables against the results, and when it is there."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from pipelines.evidence.summary import summarise
from report import comparisons, figures, label_efficiency, page, ranks
from report.results import load
from report.tables import DASH
from tests import fake_results as fake

METHODS = ["full", "head-only", "colora-blocks2-5", "vit-lora"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Four series on five shares, three seeds; one run and one whole method missing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("labels"))
        params, like = fake.label_params(METHODS, range(3), allow_missing=True)
        skip = [("head-only-10", 0), *(("vit-lora-25", seed) for seed in range(3))]
        fake.write_profile(params, skip, folds=True, like=like, n_test=80)
        fake.write_label_card(params)
        summarise(params)
        return load(params.results_dir.absolute())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Results of a profile with one share."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("plain"))
        params = fake.params(["full", "head-only"])
        fake.write_profile(params, n_test=80)
        summarise(params)
        return load(params.results_dir.absolute())


def test_the_figure_shows_every_share_with_its_interval(results):
    figure = label_efficiency.label_efficiency(results)
    for axis, short in zip(figure.axes, ("acc", "auc"), strict=True):
        assert axis.get_xscale() == "log"
        assert [label.get_text() for label in axis.get_xticklabels()] == [
            "22\n5 %", "45\n10 %", "112\n25 %", "223\n50 %", "446\n100 %",
        ]  # fmt: skip
        lines = axis.lines[::2]  # each is drawn as a line and as markers
        assert len(lines) == len(axis.collections) == len(METHODS)
        for series, line, bars in zip(METHODS, lines, axis.collections, strict=True):
            own = results.labels[(results.labels.series == series) & results.labels.images.notna()]
            np.testing.assert_allclose(line.get_ydata(), own[f"{short}_mean"])
            np.testing.assert_allclose(line.get_xdata(), own.patients, rtol=0.1)
            ends = np.array(bars.get_segments())
            np.testing.assert_allclose(ends[:, :, 1], own[[f"{short}_lo", f"{short}_hi"]])
            np.testing.assert_allclose(ends[:, 0, 0], line.get_xdata())
        assert axis.get_ylim()[1] >= results.labels[f"{short}_hi"].max()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == METHODS
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines[::2]}) == 4
    plt.close(figure)


def test_without_patients_images_are_counted(results):
    bare = replace(results, labels=results.labels.assign(patients=np.nan))
    figure = label_efficiency.label_efficiency(bare)
    assert figure.axes[0].get_xticklabels()[0].get_text() == "30\n5 %"
    assert figure.axes[0].get_xlabel().startswith("Images")
    plt.close(figure)
    text = label_efficiency.label_accuracy(bare).text
    assert text.columns[1] == "5 % (30 images)"


def test_the_table_of_accuracies(results):
    table = label_efficiency.label_accuracy(results)
    assert table.text.columns.tolist() == [
        "Series", "5 % (22 patients)", "10 % (45 patients)", "25 % (112 patients)", "50 % (223 patients)",
        "100 % (446 patients)",
    ]  # fmt: skip
    text = table.text.set_index("Series")
    assert text.index.tolist() == METHODS
    assert text.loc["vit-lora", "25 % (112 patients)"] == DASH
    own = results.labels.set_index("method").loc["full-10"]
    assert text.loc["full", "10 % (45 patients)"] == f"{own.acc_mean:.3f} [{own.acc_lo:.3f}, {own.acc_hi:.3f}]"
    assert table.raw is results.labels


def made_up(results, differences, lows, best):
    """The results with these differences from the best (at 5, 10, 25, 50 and 100 % of the labels) for `full`."""
    own = results.labels[results.labels.series == "full"].assign(
        difference=differences, lo=lows, hi=[None if low is None else 0.02 for low in lows], best=best, margin=0.01
    )
    return replace(results, labels=own.astype(dict.fromkeys(("difference", "lo", "hi"), float)))


@pytest.mark.parametrize(
    ("differences", "lows", "best", "within", "shown"),
    [
        ([-0.2, -0.1, -0.01, -0.004, 0], [-0.3, -0.2, -0.03, -0.009, None], "full", 0.25, 0.5),
        ([-0.2, -0.1, -0.011, -0.004, 0], [-0.3, -0.2, -0.009, -0.02, None], "full", 0.5, 0.25),
        ([-0.2, -0.1, -0.1, -0.1, 0], [-0.3, -0.2, -0.2, -0.2, None], "full", 1, 1),
        # The best need not be where the labels are most, nor need every share have a result.
        ([None, -0.1, 0, -0.005, -0.05], [None, -0.2, None, -0.02, -0.1], "full-25", 0.25, 0.25),
        ([None] * 5, [None] * 5, None, np.nan, np.nan),
    ],
)
def test_the_smallest_share_that_is_enough(results, differences, lows, best, within, shown):
    row = label_efficiency.needs(made_up(results, differences, lows, best), "full")
    np.testing.assert_equal([row["within_share"], row["shown_share"]], [within, shown])
    patients = {0.25: 112, 0.5: 223, 1: 446}.get(within, np.nan)
    np.testing.assert_equal(row["within_patients"], patients)
    np.testing.assert_equal(row["best_share"], {"full": 1, "full-25": 0.25}.get(best, np.nan))


def test_the_table_of_needs_in_words(results):
    found = made_up(results, [-0.2, -0.1, -0.01, -0.004, 0], [-0.3, -0.2, -0.03, -0.009, None], "full")
    table = label_efficiency.label_needs(found)
    (row,) = table.text.to_dict("records")
    best = results.labels.set_index("method").acc_mean["full"]
    assert list(row.values()) == [
        "full", f"{best:.3f} at 100 %", "25 % (112 patients)", "−0.010 [−0.030, +0.020]", "50 % (223 patients)", DASH,
    ]  # fmt: skip
    assert list(row)[2] == "Within 1 pp from"
    assert label_efficiency.finding(found)[0].endswith("of its own best accuracy: `full` 25 % (112 patients).")


def test_verdicts_against_full_fine_tuning_are_those_of_the_same_share(results):
    methods = ["head-only-05", "head-only-10", "head-only-25", "head-only-50", "head-only"]
    frame = pd.DataFrame({
        "method": methods, "against": "full", "difference": [-0.1, -0.1, -0.03, 0.0, 0.05], "seeds": 3,
        "p_holm": [0.01, 0.04, 0.2, 0.5, 0.001], "p_swap_holm": [0.01, 0.04, 0.01, 0.5, 0.001],
        "equivalent": [False, False, False, False, False],
    })  # fmt: skip
    row = label_efficiency.needs(replace(results, comparisons=frame), "head-only")
    assert row["against_full"] == "lower at 5 % to 10 %; undecided at 25 % to 50 %; higher at 100 %"


def test_the_section_is_there_only_where_shares_differ(results, plain):
    written = {make(results).name: make(results) for make in label_efficiency.TABLES}
    text = page.render(results, written, ["label_efficiency"])
    assert "\n## Label efficiency\n" in text and "Label efficiency: the smallest share" in text
    assert "figures/label_efficiency.png" in text and "| colora-blocks2-5 |" in text
    assert label_efficiency.label_efficiency(plain) is None
    assert all(make(plain).raw.empty for make in label_efficiency.TABLES)
    assert label_efficiency.finding(plain) == [] and label_efficiency.only_largest(plain) == ""
    assert "abel efficiency" not in page.render(plain, {}, [])


def test_what_is_about_one_share_takes_the_largest(results, plain):
    assert results.reference == "full" and page.chosen_colora(results) == "colora-blocks2-5"
    assert results.whole.index.tolist() == METHODS and plain.whole.equals(plain.methods)
    figure = figures.parameters(results)
    assert {text.get_text() for text in figure.axes[0].texts} == set(METHODS)
    plt.close(figure)
    assert page.caption(results, "critical_difference").endswith(
        "Only the methods that are trained on 100 % of the labels."
    )
    assert "No rank" not in ranks.caption(results)


def test_learning_curves_stand_before_those_of_their_share(results):
    figure = figures.learning_curves(results)
    panels = dict(zip(results.methods.index, figure.axes))
    curves = results.curves.groupby(["method", "epoch"]).val_acc.mean()
    behind = panels["colora-blocks2-5-10"].lines[0]
    np.testing.assert_allclose(behind.get_ydata(), curves["full-10"])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[1:] == ["full on the same share", "transfer on the same share"]
    plt.close(figure)


def test_differences_are_told_on_the_same_share(results, plain):
    assert "same backbone and the same share of the labels. The interval" in comparisons.comparisons(results).note
    assert "same backbone. The interval" in comparisons.comparisons(plain).note
    assert "against full fine-tuning on the same share of the labels, 10 methods" in comparisons.tally(results)[0]

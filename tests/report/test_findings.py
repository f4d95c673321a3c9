"""The numbers behind figures, each against something independent."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from pipelines.evidence import schemas
from report import drawing
from report.reading import Explained
from report.sections import (
    budgets,
    clinical,
    confusion,
    cost_growth,
    forest,
    gradcam,
    hard_scans,
    label_efficiency,
    layer_costs,
    learning_curves,
    learning_rates,
    pareto,
    reliability,
    robustness,
    stability,
)  # fmt: skip
from tests.report import made


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_holds_whoever_no_other_one_beats(pairs):
    cost, accuracy = (pd.Series(values, dtype=float) for values in zip(*pairs))
    found = pareto.front(cost, accuracy)

    def beaten(i):
        return any(
            cost[j] <= cost[i] and accuracy[j] >= accuracy[i] and (cost[j] < cost[i] or accuracy[j] > accuracy[i])
            for j in cost.index
        )

    values = {(cost[i], accuracy[i]) for i in cost.index if not beaten(i)}
    assert {(cost[i], accuracy[i]) for i in found} == values and len(found) == len(values)


def test_who_is_ahead_of_every_colora_method_is_named():
    points = pd.DataFrame(
        {"family": ["lora", "colora", "full"], "acc_mean": [0.95, 0.9, 0.96], "trainable": [1.0, 5.0, 9.0]},
        index=["vit-lora", "ours", "full"],
    )
    told = pareto.finding(points, {"trainable": pareto.front(points.trainable, points.acc_mean)})
    assert told == "vit-lora is as accurate as every CoLoRA method with fewer trained parameters."
    points.loc["ours", "trainable"] = 0.5
    told = pareto.finding(points, {"trainable": pareto.front(points.trainable, points.acc_mean)})
    assert told == "By means alone a CoLoRA method is among the best trade-offs of accuracy and trained parameters."


def test_a_method_without_a_cost_is_on_no_front():
    assert pareto.front(pd.Series([np.nan, 2.0], ["a", "b"]), pd.Series([1.0, 0.5], ["a", "b"])) == ["b"]


def test_confusion_is_the_share_of_the_true_class():
    rng = np.random.default_rng(0)
    true, called = rng.integers(0, 3, (2, 200))
    names = np.array(["b", "a", "c"])  # the classes' own order, not the alphabet's
    counts = confusion_matrix(true, called)
    frame = pd.DataFrame([
        {"method": "m", "true": names[i], "predicted": names[j],
        "count": counts[i, j]} for i in range(3) for j in range(3)
    ])  # fmt: skip
    share = confusion.matrix(frame, "m")
    assert list(share.index) == list(share.columns) == ["b", "a", "c"]
    np.testing.assert_allclose(share, confusion_matrix(true, called, normalize="true"))
    recall = confusion.recall(frame, ["m"], "").raw.set_index("method").loc["m"]
    np.testing.assert_allclose(recall.to_numpy(float), np.diag(share))


def test_the_commonest_confusion_is_told_with_who_shares_it():
    def share(a_to_b, b_to_a):
        return pd.DataFrame([[1 - a_to_b, a_to_b], [b_to_a, 1 - b_to_a]], ["A", "B"], ["A", "B"])

    told = confusion.finding({"x": share(0.2, 0.1), "y": share(0.3, 0.1), "z": share(0.1, 0.2)})
    assert told == "x takes 20 % of A for B, the commonest confusion of 1 of 2 others drawn too."
    assert confusion.finding({"x": share(0, 0)}) == "x confuses no two classes."


def contrast(name, higher, difference):
    return {"method": "ours", "comparator": name, "higher": higher, "difference": difference}


def test_the_forests_title_tells_every_verdict():
    rows = pd.DataFrame([
        contrast("a", "supported", 0.031), contrast("b", "contradicted", -0.02), contrast("c", "inconclusive", 0.001),
        contrast("d", "not tested", 0.2),
    ])  # fmt: skip
    assert forest.finding(rows) == (
        "ours is more accurate than a (+3.1); less accurate than b (\N{MINUS SIGN}2.0); not told apart from c (+0.1); "
        "1 comparison not tested."
    )
    assert forest.finding(rows[3:]) == "ours was not tested; 1 comparison not tested."


def test_contrasts_stand_beside_those_of_second_runs_on_one_machine():
    rows = pd.DataFrame([made.contrast("full", -0.02), made.contrast("bitfit", 0.1), made.contrast("vim", 0.2)])
    ours = f"{made.METHOD}-2"
    pair = {"data": "test", "metric": "accuracy", "role": "declared", "reference": ours, "runs": 15}
    again = {**pair, "role": "again", "difference": 0.0, "lo": -0.1, "hi": 0.1}
    pairs = pd.DataFrame([
        {**again, "method": ours, "reference": made.METHOD},
        {**again, "method": "full-2", "reference": "full"},
        {**again, "method": "full-faster", "reference": "full"},  # at another rate, and so another method
        {**pair, "method": "full-2", "difference": 0.007, "lo": -0.001, "hi": 0.016},
        {**pair, "method": "full-faster", "difference": 0.2, "lo": 0.1, "hi": 0.3},
        {**pair, "method": "vim", "difference": -0.3, "lo": -0.4, "hi": -0.2},  # has run there alone
        {**pair, "method": "another", "difference": 0.5, "lo": 0.4, "hi": 0.6},  # is not declared
        {**pair, "method": "bitfit", "reference": made.METHOD, "difference": -0.1, "lo": -0.2, "hi": 0.0},
    ])  # fmt: skip
    second = pd.DataFrame({"second": True}, index=[ours, "full-2"])
    second.loc["full-faster"] = False
    machines = pd.Series({ours: "CPU", "full-2": "CPU", "full-faster": "CPU", made.METHOD: "GPU", "full": "GPU"})
    results = SimpleNamespace(pairs=pairs, methods=second, machines=machines)
    raw = forest.second_runs(rows, results)
    assert list(raw.against) == ["full", "vim"]
    text = forest.second_table(raw).text
    assert list(text["There"]) == [
        "\N{MINUS SIGN}0.007 [\N{MINUS SIGN}0.016, +0.001]", "+0.300 [+0.200, +0.400]",
    ]  # fmt: skip
    assert list(text["Which are"]) == ["full-2", "vim"]
    axis = forest.figure(rows, dict.fromkeys(rows.against, "black"), 0.02, raw).axes[0]
    drawn = {round(line.get_ydata()[0] - 0.3): line.get_xdata()[0] for line in axis.lines if line.get_marker() == "D"}
    assert drawn == pytest.approx({0: -0.7, 2: 30.0}) and axis.get_xlim()[1] > 40
    results.machines = machines.where(machines.index != made.METHOD, "CPU")  # the same again on the same machine
    assert forest.second_runs(rows, results).empty
    results.machines, results.pairs = machines, pairs[pairs.role == "declared"]
    assert forest.second_runs(rows, results).empty


def test_growth_is_told_by_its_power():
    at = np.array([8.0, 16, 32, 64])
    growth = pd.DataFrame({
        "sweep": "batch", "method": "m", "family": "full", "backbone": "vgg16", "batch_size": at, "image_size": 64.0,
        "rank": np.nan, "step_ms": 3 * at**0.7, "peak_mib": 5 * at**0.3,
    })  # fmt: skip
    rows = cost_growth.swept(growth)
    assert cost_growth.slopes(rows)["batch", "m"] == pytest.approx((0.7, 0.3))
    assert "power of 0.70 (m)" in cost_growth.finding(rows)
    assert cost_growth.swept(growth[:1]).empty
    one_each = growth[:2].assign(method=["m", "other"])  # as a sweep leaves it that was stopped
    assert cost_growth.swept(one_each).empty


def tried(method, rates, accuracies, chosen, seeds=1):
    chose = [str(rate == chosen) for rate in rates]
    return pd.DataFrame({"method": method, "lr": rates, "seeds": seeds, "val_acc": accuracies, "chosen": chose})


def test_a_rate_at_the_edge_of_the_grid_is_named():
    rates = [1e-4, 1e-3, 1e-2]
    frame = pd.concat([tried("inside", rates, [0.8, 0.9, 0.895], 1e-3), tried("edge", rates, [0.5, 0.6, 0.9], 1e-2)])
    assert learning_rates.at_edge(frame) == ["edge"] and learning_rates.at_edge(frame[:0]) == []
    told = learning_rates.finding(frame)
    assert told == (
        "inside is within a point of its best at 2 of the rates tried, edge at 1; edge chose the edge of the grid."
    )
    text = learning_rates.table(frame, ["edge", "inside"]).text.set_index("Method")
    assert text.loc["edge", "0.01"] == "0.900 *" and text.loc["inside", "0.0001"] == "0.800"


def test_a_rate_that_one_seed_ruled_out_is_marked_and_compared_with_no_mean():
    """0.95 on one seed's images is no better than 0.92 as a mean over five."""
    frame = tried("m", [1e-4, 1e-3, 1e-2], [0.95, 0.92, 0.915], 1e-3, seeds=[1, 5, 5])
    assert learning_rates.finding(frame).startswith("m is within a point of its best at 2 of the rates tried")
    table = learning_rates.table(frame, ["m"])
    assert list(table.text.iloc[0])[1:] == ["(0.950)", "0.920 *", "0.915"] and "means over 5 seeds" in table.note
    assert "in brackets" not in learning_rates.table(frame.assign(seeds=1), ["m"]).note
    looks = pd.DataFrame({"color": ["#336699"], "ink": ["#336699"]}, index=["m"])
    with drawing.look():
        figure = learning_rates.figure(frame, ["m"], looks)
    hollow = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    plt.close(figure)
    assert hollow == [[1e-4]]


def test_a_rate_that_failed_on_another_seed_takes_no_place_from_the_one_chosen():
    frame = tried("m", [1e-4, 1e-3, 1e-2], [0.5, np.nan, np.nan], 1e-4, seeds=[1, 5, 5])
    assert learning_rates.finding(frame).startswith("m is within a point of its best at 1 of the rates tried")
    assert list(learning_rates.table(frame, ["m"]).text.iloc[0])[1:] == ["0.500 *", "\N{EM DASH}", "\N{EM DASH}"]


def test_rates_stand_on_the_axis_as_numbers():
    """Names may hold dollars, so no text is read as a formula, and a logarithmic axis must write none."""
    looks = pd.DataFrame({"color": ["#336699"], "ink": ["#336699"]}, index=["m"])
    with drawing.look():
        figure = learning_rates.figure(tried("m", [3e-4, 1e-3, 3e-3], [0.8, 0.9, 0.85], 1e-3), ["m"], looks)
        shown = [label.get_text() for label in figure.axes[0].get_xticklabels(which="both") if label.get_text()]
    plt.close(figure)
    assert {"0.0003", "0.001", "0.003"} <= set(shown) and not any("$" in text for text in shown)


def test_curves_that_still_rise_are_counted():
    def curve(method, values):
        return pd.DataFrame({"method": method, "seed": 0, "epoch": range(1, 1 + len(values)), "val_acc": values})

    frame = pd.concat([curve("flat", [0.8, 0.9, 0.9, 0.9]), curve("rising", [0.5, 0.6, 0.7, 0.8])])
    told = learning_curves.finding(frame, ["flat", "rising"])
    first, second = told.split("; ")
    assert first == "flat is within a point of its best after 2 of its 4 epochs"
    assert second == "rising gained over a point in the last two epochs."
    assert learning_curves.finding(frame, ["flat"]).endswith("none gained a point in the last two epochs.")
    assert learning_curves.finding(frame, []).startswith("No method learned")


def test_the_smallest_share_that_is_enough():
    rows = pd.DataFrame({
        "series": "m", "share": [0.1, 0.5, 1.0], "acc_mean": [0.8, 0.895, 0.9], "difference": [-0.1, -0.005, 0.0],
        "lo": [-0.15, -0.02, np.nan], "hi": [-0.05, 0.01, np.nan],
    })  # fmt: skip
    row = label_efficiency.needed(rows, "").text.iloc[0]
    assert (
        row["Within 1.0 points from"] == "50 %" and row["Shown from"] == "100 %" and row["With all labels"] == "0.900"
    )


def test_a_series_that_was_never_run_on_all_labels_needs_no_share_of_them():
    rows = pd.DataFrame({
        "series": ["a", "a", "b", "b"], "share": [0.25, 1, 0.1, 0.25], "acc_mean": [0.8, 0.9, 0.6, 0.7],
        "difference": [-0.1, np.nan, -0.1, np.nan], "lo": [-0.2, np.nan, -0.2, np.nan],
        "hi": [0.0, np.nan, 0.0, np.nan],
    })  # fmt: skip
    other, own = label_efficiency.needed(rows, "").text.to_dict("records")  # by the least share
    assert own["With all labels"] == "0.900" and own["Shown from"] == own["Within 1.0 points from"] == "100 %"
    assert set(other.values()) == {"b", "\N{EM DASH}"}


def test_a_single_method_is_not_set_beside_itself():
    tried = pd.DataFrame({"method": "full", "lr": [1e-3, 1e-2], "seeds": 1, "val_acc": [0.9, 0.8], "chosen": 1e-3})
    assert learning_rates.finding(tried).startswith("full is within a point of its best at 1 of the rates tried; ")
    jitter = pd.DataFrame({"method": ["full"], "measure": ["jitter"], "value": [0.016]})
    assert stability.finding(jitter).endswith("moves by 1.6 points for full.")


def test_a_small_share_is_not_called_none():
    share = pd.DataFrame([[249 / 250, 1 / 250], [0, 1]], ["A", "B"], ["A", "B"])
    assert confusion.finding({"m": share}) == "m takes 0.4 % of A for B."


def test_few_labels_are_told_by_the_declared_contrasts():
    rows = pd.DataFrame({
        "series": ["a", "b"] * 2, "method": ["a-10", "b-10", "a", "b"], "share": [0.1, 0.1, 1, 1],
        "acc_mean": [0.7, 0.6, 0.8, 0.9],
    })  # fmt: skip
    columns = ["data", "metric", "share", "method", "comparator", "higher"]
    none = pd.DataFrame(columns=columns)
    assert label_efficiency.finding(rows, none) == "With 10 % of the labels a is best, with 100 % b."
    small = ["test", "accuracy", 0.1, "a-10", "full", "supported"]
    declared = pd.DataFrame([small], columns=columns)
    assert label_efficiency.finding(rows, declared) == "With 10 % of the labels a is more accurate than full."
    declared = pd.DataFrame([small, ["test", "accuracy", 1, "a", "full", "contradicted"]], columns=columns)
    told = "With 10 % of the labels a is more accurate than full; with 100 %, less accurate than full."
    assert label_efficiency.finding(rows, declared) == told


def test_the_best_calibrated_is_the_one_nearest_to_chance():
    errors = pd.DataFrame({"ece": [0.05, 0.04], "ece_chance": [0.045, 0.01]}, ["a", "b"])
    assert (
        reliability.finding(errors)
        == "Of those drawn a's probabilities can be believed most (ECE 0.050), b's least (0.040)."
    )


def test_a_run_without_a_value_leaves_its_method_without_one():
    row = {"recall": 0.9, "specificity": 0.9, "f1": 0.9, "ece": 0.1, "ece_chance": 0.1, "brier": 0.2, "nll": 0.3}
    frame = pd.DataFrame([
        {"method": "m", "seed": 0, "precision": 0.8, **row}, {"method": "m", "seed": 1, "precision": np.nan, **row},
    ])  # fmt: skip
    text = reliability.scores(frame, ["m"], "").text.iloc[0]
    assert text["Precision"] == "\N{EM DASH}" and text["Recall"] == "0.900 ± 0.000"


def test_the_order_that_turns_is_told_with_its_kind():
    rows = pd.DataFrame({"drop": [0.1, 0.05]}, ["ours", "full"])
    pairs = pd.DataFrame({"kind": ["motion", "blur"], "against": ["full", "full"], "order": ["reversed", "same"]})
    told = robustness.finding(rows, pairs, ["ours"])
    assert told == "Corrupted images cost ours 10.0 and full 5.0 points; motion reverses the order with full."


def test_hard_scans_are_told_by_their_commonest_confusion():
    rows = pd.DataFrame({"label": ["A", "A", "B"], "predicted": ["B", "B", "A"]})
    assert hard_scans.finding(rows) == "The surest errors of most runs: 2 of 3 are of class A, called B."


def test_the_class_that_is_found_least_is_named():
    frame = pd.DataFrame({
        "method": "m", "level": "image", "class": ["A", "B"], "measure": "sensitivity", "value": [0.8, 0.95],
    })  # fmt: skip
    assert clinical.finding(frame, ["m"]) == (
        "At 95 % specificity m finds 80 % of A, the least of any class, and 95 % of B, the most."
    )


def test_stability_is_told_in_points():
    frame = pd.DataFrame({"method": ["a", "b"], "measure": "jitter", "value": [0.01, 0.004]})
    assert stability.finding(frame) == ("From epoch to epoch validation accuracy moves by 0.4 points for b, 1.0 for a.")


@pytest.mark.parametrize(("small", "large"), [((4, 4), (64, 64)), ((7, 5), (33, 20)), ((1, 1), (8, 8))])
def test_maps_are_enlarged_as_torch_does(small, large):
    content = np.random.default_rng(0).random(small)
    expected = torch.nn.functional.interpolate(
        torch.tensor(content)[None, None], large, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(gradcam.enlarged(content, large), expected[0, 0], atol=1e-12)


def explained(**changes):
    maps = np.zeros((2, 10, 10), np.uint8)
    maps[0, 0], maps[1, 5, 5] = 255, 255  # at the upper edge, in the middle
    found = {
        "images": np.full((2, 40, 40), 128, np.uint8), "indices": np.arange(2), "labels": np.array([0, 1]),
        "shows": np.array(["agreement", "disagreement"]), "methods": np.array(["m"]), "predicted": np.array([[1, 1]]),
        "probability": np.array([[0.9, 0.8]]), "classes": np.array(["A", "B"]), "seed": 0, "pool": 10, "maps": [maps],
    }  # fmt: skip
    return Explained(**{**found, **changes})


def test_who_is_right_is_told_of_the_scans_where_methods_disagree():
    assert gradcam.finding(explained()) == "Where methods disagree (1 scan), right are: m 1."
    assert gradcam.finding(explained(shows=np.array(["agreement"] * 2))) == "Methods agree."


def test_a_map_of_no_evidence_leaves_the_scan_as_it_is():
    scan = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    shown = gradcam.overlaid(gradcam.grey(scan), np.zeros((1, 1)))
    assert np.abs(shown.astype(int) - scan[..., None]).max() <= gradcam.STEP / 2
    hot = gradcam.overlaid(gradcam.grey(scan), np.ones((1, 1)))
    assert np.ptp(hot.astype(int), axis=2).min() > 50  # coloured everywhere


def test_the_declared_methods_are_shown_first():
    many = explained(
        methods=np.array(list("abcdefgh")), predicted=np.zeros((8, 2), int), probability=np.ones((8, 2)),
        maps=[np.full((2, 1, 1), i) for i in range(8)],
    )  # fmt: skip
    shown = gradcam.chosen(many, ["g", "h"])
    assert shown.methods.tolist() == list("abcdgh") and [m[0, 0, 0] for m in shown.maps] == [0, 1, 2, 3, 6, 7]


def test_leading_needs_no_declaration(results):
    plain = replace(results, contrasts=results.contrasts.iloc[:0])
    assert plain.declared == [] and plain.leading(3) == list(results.methods.drop_duplicates("kind").index[:3])
    assert forest.section(plain) is None


def test_the_table_of_layers_shows_every_row_with_dashes_for_what_is_not_there():
    row = dict.fromkeys(schemas.TABLES["cost_layers"].columns, 1.0)
    row |= {"layer": "selective scan", "method": "Vim", "shape": "batch 4", "bound": "copy", "error": 1.5e-6}
    row |= {"reference_ratio": 0.14, "reference_ratio_lo": 0.1, "reference_ratio_hi": 0.2, "ms_lo": np.nan}
    text = layer_costs.table(pd.DataFrame([row]), "tiny", "Some CPU").text.iloc[0]
    assert text["Time × reference"] == "0.14 [0.10, 0.20]" and text["Floor"] == "copying"
    assert text["As in"] == "Vim: batch 4" and text["Error"] == "1.5e-06" and text["Time, ms"] == "1.00"


def test_a_budget_holds_who_trains_about_as_much_of_the_same_network():
    methods = pd.DataFrame(
        [
            ("ours", "colora", "vgg16", 100.0, 0.9), ("ours-too", "colora", "vgg16", 76.0, 0.92),
            ("lora", "peft", "vgg16", 125.0, 0.91), ("more", "peft", "vgg16", 126.0, 0.99),
            ("elsewhere", "peft", "resnet50", 100.0, 0.99), ("small", "colora", "vgg16", 10.0, 0.8),
            ("bias", "bitfit", "vgg16", 8.0, 0.7), ("alone", "colora", "vgg16", 1.0, 0.6),
        ],
        columns=["method", "family", "backbone", "trainable", "acc_mean"],
    ).set_index("method")  # fmt: skip
    groups = budgets.budgets(methods, ["ours"])
    assert groups == {"ours": ["ours-too", "lora", "ours"], "small": ["small", "bias"]}
    methods = methods.assign(acc_lo=0.0, acc_hi=1.0, lr=0.001)
    pair = {"data": "test", "metric": "accuracy", "role": "declared", "lo": -0.01, "hi": 0.02}
    pairs = pd.DataFrame([{**pair, "method": "ours-too", "reference": "ours", "difference": 0.005}])
    told = "Most accurate with about so many trained parameters: with 100 ours-too, 0.920 ({}); with 10.0 small, 0.800."
    rows = budgets.paired(methods, groups, SimpleNamespace(pairs=pairs))
    assert budgets.finding(rows) == told.format("+0.5 points from ours on the same seeds")  # not the means' 2.0
    rows = budgets.paired(methods, groups, SimpleNamespace(pairs=pairs[:0]))
    assert budgets.finding(rows) == told.format("ours 0.900")
    assert budgets.budgets(methods[methods.family == "colora"], ["ours"]) == {}


def test_methods_whose_rate_was_decided_on_the_first_seed_are_named():
    row = {"method": "raced", "lr": 1e-3, "seeds": 5, "val_acc": 0.9, "chosen": "True"}
    tried = pd.DataFrame([row, {**row, "lr": 3e-3, "seeds": 1}, {**row, "method": "sure", "seeds": 1}])
    assert learning_rates._seeds(tried, "hollow").endswith("ruled it out; on the first alone was decided for sure)")
    assert learning_rates._seeds(tried[:2], "hollow").endswith("(hollow: on the first alone, which ruled it out)")

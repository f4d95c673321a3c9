"""What a comparison must not hide: another machine, another rate, a second run, runs that are missing."""

from dataclasses import replace

import pandas as pd
import pytest

from report import pages
from report.claims import tests as kinds
from report.pages import charts, first_screen, markdown, model_card
from report.sections import accuracy, beside_paper, build, external, forest, hard_scans
from tests.report import made


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return pages.read(made.write(tmp_path_factory.mktemp("made") / "results" / "fake"), paper=True)


def test_what_another_rate_or_machine_changes_is_told_first(results):
    assert first_screen.again(results) == ""
    name = "bitfit"  # stands for the method at another rate
    methods = results.methods.copy()
    methods.loc[name, ["lr", "acc_mean"]] = [0.003, 0.956]
    methods.loc[made.METHOD, "lr"] = 0.001
    row = {"data": "test", "metric": "accuracy", "method": name, "runs": 5, "images": 1000}
    rows = [
        {**row, "reference": made.METHOD, "role": "again", "difference": 0.03, "lo": 0.006, "hi": 0.054},
        {**row, "reference": "full", "role": "full", "difference": -0.004, "lo": -0.02, "hi": 0.012},
    ]
    changed = replace(results, methods=methods, pairs=pd.DataFrame(rows))
    told = first_screen.again(changed)
    assert f"at 0.003 in place of the 0.001 that tuning chose, {made.METHOD} is right on 95.6 %" in told
    assert (
        "(+3.0 points (+0.6 to +5.4); 5 runs), which is \N{MINUS SIGN}0.4 points (\N{MINUS SIGN}2.0 to +1.2) from full"
        in told
    )
    assert told in pages.headline(changed)
    (table,) = accuracy.again(changed)
    assert list(table.text.iloc[0])[:7] == [name, "0.003", "Some GPU", "0.956", made.METHOD, "0.001", "Some GPU"]
    assert accuracy.again(results) == []
    gpus = results.runs.gpu.astype(object)
    both = replace(changed, runs=results.runs.assign(gpu=gpus.where(results.runs.method != name, "NVIDIA Y")))
    told = first_screen.again(both)  # a rate and a machine
    assert "at 0.003 in place of the 0.001 that tuning chose and on NVIDIA Y in place of Some GPU" in told
    assert "from full on Some GPU; exploratory" in told
    methods.loc[made.METHOD, "lr"] = 0.003
    runs = results.runs.assign(
        gpu=results.runs.gpu.astype(object).where(results.runs.method != made.METHOD, "NVIDIA X")
    )
    told = first_screen.again(replace(changed, methods=methods, runs=runs))
    assert f"trained on Some GPU in place of NVIDIA X, {made.METHOD} is right on 95.6 % (+3.0 points" in told
    assert told.endswith("from full on the same machine; exploratory, unadjusted")
    told = first_screen.again(
        replace(changed, methods=methods, runs=runs.assign(gpu=runs.gpu.where(runs.method != name, "Another GPU")))
    )
    assert "trained on Another GPU in place of NVIDIA X" in told
    assert told.endswith("from full on Some GPU; exploratory, unadjusted")
    told = first_screen.again(replace(changed, methods=methods))
    assert told.startswith(f"trained a second time, {made.METHOD} is right on")


def test_a_comparator_from_scratch_beside_a_pretrained_method_is_called_so(results):
    weights = results.methods.weights.where(results.methods.index != "bitfit", "random")
    made_rows = [made.contrast("bitfit", 0.1, repeats=1), made.contrast("full", -0.1, repeats=2)]
    rows = pd.DataFrame(made_rows).reindex(columns=results.contrasts.columns)
    changed = replace(results, methods=results.methods.assign(weights=weights), contrasts=rows)
    assert "More accurate than bitfit trained from scratch (+10.0 points" in pages.headline(changed)
    assert "less accurate than full (" in pages.headline(changed)
    caption = forest.section(changed).caption
    assert "Trained from scratch: bitfit." in caption and "5 folds × 1–2 repeats" in caption
    assert "scratch" not in forest.section(replace(results, contrasts=rows)).caption
    judge = kinds.Contrast(kind="contrast", says="higher", metric="accuracy", against="bitfit").judge
    assert "against bitfit, trained from scratch; 10 runs" in judge(changed, made.METHOD).evidence
    assert "scratch" not in judge(replace(results, contrasts=rows), made.METHOD).evidence


def test_a_comparator_on_another_machine_is_called_so(results):
    rows = pd.DataFrame([made.contrast("bitfit", 0.1), made.contrast("full", -0.1)])
    runs = results.runs.assign(gpu=results.runs.gpu.astype(object).where(results.runs.method != made.METHOD, None))
    weights = results.methods.weights.where(results.methods.index != "bitfit", "random")
    changed = replace(
        results, methods=results.methods.assign(weights=weights), runs=runs,
        contrasts=rows.reindex(columns=results.contrasts.columns),
    )  # fmt: skip
    assert changed.machines[made.METHOD] == "Some CPU" and changed.machines["full"] == "Some GPU"
    told = pages.headline(changed)
    assert "More accurate than bitfit trained from scratch and on another machine (+10.0 points" in told
    assert "less accurate than full trained on another machine (" in told
    assert "to \N{MINUS SIGN}8.5; trained on another machine), training" in told
    caption = forest.section(changed).caption
    assert "Trained from scratch and on another machine: bitfit. " in caption
    assert caption.endswith("Trained on another machine: full.")
    judge = kinds.Contrast(kind="contrast", says="higher", metric="accuracy", against="full").judge
    assert "against full, trained on another machine; " in judge(changed, made.METHOD).evidence
    assert "another machine" not in pages.headline(replace(changed, runs=results.runs))
    elsewhere = changed.contrasts.assign(data="clinic", metric="balanced_accuracy")
    rows = pd.DataFrame({"data": "clinic", "method": ["full"], "balanced_accuracy": 0.8, "change": -0.1})
    told = external.finding(rows, replace(changed, contrasts=elsewhere))
    assert "above bitfit trained from scratch and on another machine and below full trained on another" in told
    card = model_card.render(changed, made.METHOD, [])
    assert "more accurate: contradicted; it was trained on another machine)." in card


def test_machines_are_compared_on_the_seeds_that_two_methods_share(results):
    runs = results.runs.assign(gpu=results.runs.gpu.astype(object))

    def unlike(**machines):
        """Of full's and the method's runs, by seed."""
        changed = runs.set_index(["method", "seed"])
        for method, own in (("full", machines["full"]), (made.METHOD, machines["ours"])):
            for seed, gpu in enumerate(own):
                changed.loc[(method, seed), ["gpu", "cpu"]] = gpu
        return replace(results, runs=changed.reset_index()).unlike(made.METHOD, "full")

    assert unlike(full=["A", "A", "B"], ours=["A", "A", "B"]) == ""
    assert unlike(full=["A", "A", "B"], ours=["B", "B", "A"]) == "trained on another machine"
    assert unlike(full=["A", "A", "B"], ours=["A", "A", "A"]) == "trained partly on another machine"
    assert unlike(full=[None] * 3, ours=["A", "A", "A"]) == ""  # it may have been the same


def test_a_method_that_lacks_a_run_is_not_ranked_and_that_is_said(results):
    methods = results.methods.assign(planned=3, seeds=3)
    methods.loc[made.METHOD, "seeds"] = 2
    told = first_screen.sentence(replace(results, methods=methods))
    assert "; the highest mean of the 9 methods that have all their runs is that of vit-full, 94.7 %" in told
    assert accuracy.section(replace(results, methods=methods)).title.startswith(
        "vit-full has the highest mean of those with all their runs, 0.947"
    )
    alone = replace(results, methods=results.methods.loc[[made.METHOD]])
    assert "highest mean" not in first_screen.sentence(alone)
    alone = replace(results, methods=results.methods.loc[["full"]])
    assert first_screen.sentence(alone).endswith(", full has 93.2 % of unseen images right.")


def test_the_headline_of_a_profile_without_the_method_tells_of_no_contrast(results):
    others = replace(results, methods=results.methods.drop(index=made.METHOD))
    assert "Not decided" not in pages.headline(others) and "More accurate" not in pages.headline(others)


def test_the_forest_shows_second_runs_on_another_machine(results):
    first, own = results.declared_contrasts.method[0], results.declared_contrasts.against[0]
    row = {"data": "test", "metric": "accuracy", "runs": 5, "lo": -0.1, "hi": 0.1, "difference": 0.02}
    again = {**row, "role": "again"}
    pairs = [
        {**again, "method": "ours-2", "reference": first}, {**again, "method": "theirs-2", "reference": own},
        {**row, "role": "declared", "method": "theirs-2", "reference": "ours-2"},
    ]  # fmt: skip
    extra = [results.methods.loc[first].rename("ours-2"), results.methods.loc[own].rename("theirs-2")]
    methods = pd.concat([results.methods, pd.DataFrame(extra).assign(second=True)])
    methods["second"] = methods.second.astype(bool)
    runs = [results.runs[results.runs.method == name].assign(method=f"{new}-2", gpu="Elsewhere")
            for name, new in ((first, "ours"), (own, "theirs"))]  # fmt: skip
    runs = pd.concat([results.runs.assign(gpu=results.runs.gpu.astype(object)), *runs])
    forest = charts.forest(replace(results, methods=methods, runs=runs, pairs=pd.DataFrame(pairs)))
    (drawn,) = (found for found in forest["rows"] if found["again"])
    assert drawn["name"] == own and drawn["again"][1] < drawn["again"][0] < drawn["again"][2]
    scale = (forest["zone"][1] - forest["zone"][0]) / 0.04
    assert drawn["again"][0] == pytest.approx(forest["zero"] - 0.02 * scale, abs=0.02)
    assert "both trained on one other machine" in forest["note"]


def test_a_second_run_stands_for_its_method_beside_the_paper(results):
    pair = {"data": "test", "metric": "accuracy", "role": "full", "method": made.METHOD, "lo": -0.03, "hi": 0.01}
    again = {**pair, "role": "again", "method": "full-2", "reference": "full", "difference": 0.0}
    rows = [{**pair, "reference": name, "difference": -0.01} for name in ("full", "full-2")]
    found = [beside_paper.differences(replace(results, pairs=pd.DataFrame([row, again]))) for row in rows]
    pd.testing.assert_frame_equal(*found)
    assert list(found[0].method) == [made.METHOD]


def test_hard_scans_are_of_the_declared_methods_where_these_have_run(results):
    row = {"image": 1, "label": "cnv", "predicted": "dme", "runs": 3, "share_wrong": 1.0, "probability": 0.9}
    found = replace(results, hard_scans=pd.DataFrame([row]))
    assert "runs of the declared methods" in hard_scans.section(found).caption
    methods = results.methods.copy()
    methods.loc[made.METHOD, "seeds"] = 0
    assert "runs of the profile's first methods" in hard_scans.section(replace(found, methods=methods)).caption


def test_the_tables_of_the_declared_contrasts_are_in_readme(results):
    sections = build(results)
    text = markdown.render(results, pages.answer(results, []), sections)
    assert "<summary>Declared contrasts: " in text

"""The report of costs measured side by side, on made-up readings: table, figures, captions, absent files."""

import itertools
import json
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from pipelines.costs.costing import COLUMNS, GROWTH_COLUMNS
from pipelines.evidence.summary import summarise
from pipelines.files.markdown import plain
from report import cost, cost_shares, figures, page, style, tables
from report.results import ReportError, load
from tests import fake_results as fake

METHODS = {  # method: (role, family, backbone, of, ms a step, its ratio, MiB, its ratio, merged ms)
    "full": ("method", "full", "vgg16", "", 900.0, 1.0, 320.0, 1.0, np.nan),
    "colora-blocks2-5": ("method", "colora", "vgg16", "", 594.0, 0.66, 147.2, 0.46, 4.0),
    "vim": ("method", "vim", "vim", "", 421.0, np.nan, 51.8, np.nan, np.nan),
    "colora-blocks2-5-two-branch": ("peer", "colora", "vgg16", "colora-blocks2-5", 720.0, 0.8, 174.0, 0.54, np.nan),
}
HEADLINE = {
    "colora_step_ratio": 0.66, "colora_step_ratio_lo": 0.65, "colora_step_ratio_hi": 0.67, "colora_peak_ratio": 0.46,
    "colora_vs_two_branch": 0.83, "colora_vs_two_branch_peak": 0.85,
}  # fmt: skip


def measure_kinds():
    """The kinds that the cost stage writes."""
    return [name.removeprefix("share_") for name in COLUMNS if name.startswith("share_")]


def readings(setting, batch):
    rows = []
    for method, (role, family, backbone, of, step, ratio, peak, memory, merged) in METHODS.items():
        row = dict.fromkeys(COLUMNS, np.nan) | {
            "method": method, "role": role, "family": family, "backbone": backbone, "of": of, "image_size": 64,
            "batch_size": batch, "trainable": 1000, "step_ms": step, "step_ms_lo": 0.9 * step, "step_ms_hi": 1.1 * step,
            "step_ratio": ratio, "step_ratio_lo": ratio - 0.01, "step_ratio_hi": ratio + 0.01, "peak_mib": peak,
            "peak_ratio": memory, "images_per_s": 1000 * batch / step, "epoch_s": step / 10, "ceiling_share": 0.5,
            "inference_ms": 5.0, "inference_merged_ms": merged, "inference_ratio": 1.0, "rounds": 11,
            "setting": setting, "precision": "float32",
            **{f"share_{kind}": share for kind, share in zip(measure_kinds(), (0.4, 0.2, 0.0, 0.1, 0.05, 0.25))},
        }  # fmt: skip
        rows.append(row)
    return rows


def growth():
    rows = []
    for method, family, rank in (("full", "full", np.nan), ("conv-lora-r8", "conv_lora", 8)):
        base = dict.fromkeys(GROWTH_COLUMNS, np.nan) | {
            "method": method,
            "family": family,
            "backbone": "vgg16",
            "rank": rank,
        }
        rows += [
            {**base, "sweep": "batch", "batch_size": n, "image_size": 64, "step_ms": 3.0 * n, "peak_mib": 2.0 * n**0.5}
            for n in (8, 16, 32)
        ]
    rows += [{**rows[-1], "sweep": "rank", "rank": r, "step_ms": 90 + r} for r in (2, 8)]
    return [*rows, {**rows[0], "sweep": "rank"}]


def write_costs(folder):
    rows = readings("64px-b16", 16) + readings("vgg16-64px-b32-float32", 32)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "cost.csv", index=False)
    pd.DataFrame(growth(), columns=GROWTH_COLUMNS).to_csv(folder / "cost_growth.csv", index=False)
    content = {
        "environment": {"gpu": None, "cpu": "Some CPU", "threads": 2},
        "headline": {"64px-b16": {"colora-blocks2-5": HEADLINE}},
        "left_out": {"64px-b16": {"colora-blocks2-5-peft-lora-r8": "the package 'peft' is not installed"}},
    }
    (folder / "cost.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of two methods, with costs at two batch sizes."""
    where = tmp_path_factory.mktemp("costs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(where)
        params = fake.params(["full", "colora-blocks2-5"], seeds=(0, 1))
        fake.write_profile(params, n_test=40)
        summarise(params)
    write_costs(where / params.results_dir)
    return where / params.results_dir


@pytest.fixture
def results(folder):
    return load(folder)


@pytest.fixture(autouse=True)
def _as_in_the_report():
    with plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **style.RC}):
        yield
    plt.close("all")


def test_table_shows_ratios_with_intervals_and_dashes(results):
    table = cost.side_by_side(results)
    assert table.text["Method"].tolist()[:4] == [
        "full",
        "colora-blocks2-5",
        "colora-blocks2-5-two-branch (peer)",
        "vim",
    ]
    ours = table.text.iloc[1]
    assert ours["Time × full"] == "0.66 [0.65, 0.67]" and ours["Memory × full"] == "0.46"
    assert ours["Step, ms"] == "594 [535, 653]" and ours["Of the ceiling"] == "50%" and ours["merged, ms"] == "4.00"
    vim = table.text.iloc[3]
    assert vim["Time × full"] == vim["Memory × full"] == vim["merged, ms"] == tables.DASH
    assert len(table.text) == 8 and table.text["Network"].iloc[-1] == "vim, 64 px, batch 32, float32"
    assert table.raw.columns.tolist() == COLUMNS and "Some CPU, 2 threads" in table.title and "11 rounds" in table.note
    assert "rounds of one run differ, not what another run" in table.note
    assert tables.latex(table).isascii()


def test_captions_say_what_was_found_and_what_is_missing(results):
    text = page.caption(results, "cost_ratios")
    assert "At 64px-b16, colora-blocks2-5 takes 0.66 [0.650, 0.670] of a full fine-tuning step, 0.46 of its" in text
    assert "0.83 of its own two-branch form's step, 0.85 of that one's memory." in text
    assert "Left out at 64px-b16: colora-blocks2-5-peft-lora-r8 (the package 'peft' is not installed)." in text
    assert "By batch size to the power of (time and memory): full 1.00 and 0.50" in page.caption(results, "cost_growth")


def test_ratios_are_drawn_where_they_are_and_peers_hollow(results):
    figure = cost.cost_ratios(results)
    time, memory = figure.axes
    for axis, expected in ((time, [1, 0.66, 0.8]), (memory, [1, 0.46, 0.54])):
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        assert [line.get_xdata()[0] for line in dots] == expected * 2
        assert [line.get_markerfacecolor() == "white" for line in dots] == [False, False, True] * 2
        assert [t.get_text() for t in axis.texts].count("nothing to relate to") == 2
    names = [label.get_text() for label in time.get_yticklabels()]
    assert names[0] == "64 px, batch 16, float32" and names[5] == "64 px, batch 32, float32" and len(names) == 10
    bars = [line.get_xdata() for line in time.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    assert any(np.allclose(bar, (0.65, 0.67)) for bar in bars)
    figure.canvas.draw()
    texts = [t for axis in figure.axes for t in (*axis.get_yticklabels(), *axis.texts) if t.get_text()]
    assert all(figure.bbox.contains(*corner) for t in texts for corner in t.get_window_extent().get_points())


def test_growth_has_a_column_of_panels_a_sweep(results):
    figure = cost.cost_growth(results)
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "Batch size", "Rank"]
    batch, rank = figure.axes[0], figure.axes[1]
    assert [line.get_ydata().tolist() for line in batch.lines] == [[24, 48, 96]] * 2
    assert sorted(len(line.get_xdata()) for line in rank.lines) == [2, 2]
    assert [line.get_linestyle() for line in rank.lines] == ["--", "-"]  # the method without a rank is level


def test_the_page_has_the_section_above_the_runs_times(results, tmp_path):
    written = tables.write_all(results, tmp_path / "tables")
    text = page.render(results, written, ["cost_ratios", "cost_growth", "cost"])
    places = [text.index(f"## {title}\n") for title in ("Cost side by side", "How cost grows", "Cost of training")]
    assert places == sorted(places) and (tmp_path / "tables" / "side_by_side.csv").is_file()
    assert {"cost_ratios", "cost_growth"} <= {draw.__name__ for draw in cost.FIGURES} and figures.cost_ratios


def test_results_without_costs(results, tmp_path):
    old = replace(results, directory=tmp_path)
    assert cost.side_by_side(old).raw.empty and cost.cost_ratios(old) is cost.cost_growth(old) is None
    assert cost.caption(old) == cost.growth_caption(old) == ""
    pd.DataFrame(columns=COLUMNS).to_csv(tmp_path / "cost.csv", index=False)
    pd.DataFrame(columns=GROWTH_COLUMNS).to_csv(tmp_path / "cost_growth.csv", index=False)
    assert cost.side_by_side(old).raw.empty and cost.cost_ratios(old) is cost.cost_growth(old) is None
    assert cost.caption(old) == cost.growth_caption(old) == ""


@pytest.mark.parametrize("name, read", [("cost", cost.read), ("cost_growth", cost.read_growth)])
def test_a_file_without_a_column_is_named(folder, results, tmp_path, name, read):
    pd.read_csv(folder / f"{name}.csv").drop(columns="family").to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(ReportError, match=rf"{name}.csv: columns family are missing; run `python -m pipelines.cost`"):
        read(replace(results, directory=tmp_path))


def test_parts_of_a_step_add_up_to_its_length(results):
    assert list(cost_shares.KINDS) == measure_kinds()
    axis = cost_shares.cost_shares(results).axes[0]
    bars = sorted(axis.patches, key=lambda bar: (-round(bar.get_y(), 6), bar.get_x()))
    rows = [bars[place : place + 6] for place in range(0, len(bars), 6)]
    assert len(rows) == 2 * len(METHODS)
    for row in rows:
        for left, right in itertools.pairwise(row):
            assert right.get_x() == pytest.approx(left.get_x() + left.get_width())
    lengths = [sum(bar.get_width() for bar in row) for row in rows[: len(METHODS)]]
    assert lengths == pytest.approx([1.0, 0.66, 0.8, 1.0])  # vim has nothing to relate to: shares alone
    assert [bar.get_width() / 0.66 for bar in rows[1]] == pytest.approx([0.4, 0.2, 0.0, 0.1, 0.05, 0.25])


def test_the_caption_of_the_shares_shows_as_it_is_written(results):
    text = page.caption(results, "cost_shares")
    assert "share_dense to share_rest" in text and plain(text) == text


def test_a_heading_says_compiled_of_those_that_are(results, tmp_path):
    frame = pd.read_csv(results.directory / "cost.csv").assign(compile=True)
    headings = []
    for eager in ([], [1]):
        frame.loc[eager, "compile"] = False
        frame.to_csv(tmp_path / "cost.csv", index=False)
        figure = cost.cost_ratios(replace(results, directory=tmp_path))
        headings.append(figure.axes[0].get_yticklabels()[0].get_text().replace("\n", " "))
    assert [text.removeprefix("64 px, batch 16, float32, ") for text in headings] == ["compiled", "some compiled"]


def test_costs_measured_before_there_were_shares(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    frame = pd.read_csv(tmp_path / "old" / "cost.csv")
    frame[[name for name in frame if not name.startswith("share_")]].to_csv(tmp_path / "old" / "cost.csv", index=False)
    assert cost_shares.cost_shares(load(tmp_path / "old")) is None

"""Layers measured on their own: rows, layers that are wrong or too large, the stage's file, the report's table."""

import csv
import json
import math
import types
from dataclasses import replace

import pandas as pd
import pytest
import torch

from pipelines.costs import costing, layer_cases, layer_costs, measure
from pipelines.profile import Params
from report import layer_costs as table
from report import page, tables
from report.results import ReportError
from tests.conftest import tiny_params
from tests.test_layer_cases import CPU, TINY


@pytest.fixture(autouse=True)
def _small_ceiling(monkeypatch):
    monkeypatch.setitem(measure.CEILING, "cpu", (64, 2**12, (2, 16, 16)))


@pytest.fixture(scope="module")
def measured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure.CEILING, "cpu", (64, 2**12, (2, 16, 16)))
        return layer_costs.measure_all(CPU, rounds=6, block_s=1e-6, cases=TINY)


def test_rows_are_complete_and_consistent(measured):
    rows = measured["rows"]
    assert [row["method"] for row in rows] == [case.method for case in TINY] and measured["left_out"] == {}
    assert set(measured["ceiling"]) == {"bytes_per_s", "float32_flops_per_s"}
    for row in rows:
        assert set(row) == set(costing.LAYER_COLUMNS)
        assert 0 <= row["error"] <= row["tolerance"] and row["rounds"] == 6
        for name in ("ms", "reference_ms", "floor_ms", "reference_ratio", "floor_ratio"):
            assert 0 < row[f"{name}_lo"] <= row[name] <= row[f"{name}_hi"] < math.inf
        assert row["peak_ratio"] == row["peak_mib"] / row["reference_peak_mib"]
        for prefix in ("", "reference_"):
            assert row[f"{prefix}kept_mib"] < row[f"{prefix}peak_mib"]
            assert row[f"{prefix}kept_per_element"] * row["elements"] / 2**20 == pytest.approx(row[f"{prefix}kept_mib"])
        assert row["kept_mib"] < row["reference_kept_mib"]
    assert [row["bound"] in ("copy", "arithmetic") for row in rows] == [True, False, False]
    assert rows[0]["elements"] == 2 * 64 * 17 and rows[2]["elements"] == 2 * 8 * 8 * 8


def test_the_longer_of_copying_and_arithmetic_is_the_floor():
    speeds = {"copy": [10.0, 20.0, 10.0], "float32": [100.0, 100.0, 500.0]}
    assert layer_costs._floor((20.0, 100.0), speeds) == ("copy", [2.0, 1.0, 2.0])
    assert layer_costs._floor((20.0, 400.0), speeds) == ("arithmetic", [4.0, 4.0, 2.0])


def test_a_layer_that_computes_something_else_is_not_measured():
    work = layer_cases.set_up(TINY[0], CPU)
    wrong = replace(work, ours=lambda *inputs: work.ours(*inputs) * 1.001)
    with pytest.raises(ValueError, match=r"vim \(selective scan, batch 2, .*differ by 0.001.*expected at most 0.0001"):
        layer_costs.checked("vim", wrong)
    nan = replace(work, ours=lambda *inputs: work.ours(*inputs) * math.nan)
    with pytest.raises(ValueError, match="differ by nan"):
        layer_costs.checked("vim", nan)


def test_a_layer_that_does_not_fit_is_left_out_and_named(monkeypatch, capsys):
    def too_large(case, device):
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(layer_cases, "set_up", too_large)
    found = layer_costs.measure_all(CPU, rounds=1, block_s=1e-6, cases=TINY[:1])
    assert found["rows"] == [] and found["left_out"] == {"a small Vim": "out of memory on cpu"}
    assert "a small Vim left out: out of memory on cpu" in capsys.readouterr().out


@pytest.mark.parametrize("asked", [True, False])
def test_the_cost_stage_writes_them_where_the_profile_asks(workdir, monkeypatch, capsys, asked):
    monkeypatch.setattr(layer_cases, "CASES", TINY[:1])
    content = tiny_params()
    content["method"] = {"full": content["method"]["full"]}
    content["cost"] = {"rounds": 1, "inference_batch": 4, "block_s": 1e-6, "layers": asked}
    costing.run(Params(**content), "cpu")
    with open(workdir / "results/tiny/cost_layers.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == costing.LAYER_COLUMNS and len(rows) == asked
    with open(workdir / "results/tiny/cost.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["full"]
    assert ("layers" in json.loads((workdir / "results/tiny/cost.json").read_text())["ceiling"]) is asked
    assert ("layers: selective scan, a small Vim" in capsys.readouterr().out) is asked


# The report


def results(folder):
    """As much of the results as the table reads."""
    (folder / "cost.json").write_text(json.dumps({"environment": {"cpu": "Some CPU", "threads": 2}}))
    return types.SimpleNamespace(directory=folder, profile="tiny")


def row(**changes):
    numbers = dict.fromkeys(costing.LAYER_COLUMNS, 1.0)
    return {**numbers, "layer": "selective scan", "method": "Vim", "shape": "batch 4", "bound": "copy", **changes}


def test_the_table_shows_every_row_and_escapes_what_it_is_given(tmp_path):
    hostile = row(
        method="<script>alert(1)</script>|_x_", bound="\\input{a}", ms_lo=math.nan, reference_ratio_lo=math.nan
    )
    rows = [row(reference_ratio=0.14, reference_ratio_lo=0.1, reference_ratio_hi=0.2, error=1.5e-6), hostile]
    pd.DataFrame(rows).to_csv(tmp_path / "cost_layers.csv", index=False)
    made = table.layer_costs(results(tmp_path))
    first, second = (made.text.iloc[place] for place in (0, 1))
    assert first["Time × reference"] == "0.14 [0.10, 0.20]" and first["Floor"] == "copying"
    assert first["As in"] == "Vim: batch 4" and first["Error"] == "1.5e-06" and second["Time, ms"] == "1.00"
    assert made.raw.columns.tolist() == costing.LAYER_COLUMNS and "1 rounds" in made.note
    assert made.title == "Selective scan and KAN layers: profile tiny, Some CPU, 2 threads"
    assert "<script>" not in tables.markdown(made) and r"\input" not in tables.latex(made)
    assert tables.latex(made).isascii()
    shown = list(page.TITLES)
    assert page.BELOW["layer_costs"] == ["layer_costs"] and shown.index("layer_costs") < shown.index("cost")


def test_no_file_and_no_rows_are_no_table(tmp_path):
    assert table.layer_costs(results(tmp_path)).raw.empty
    pd.DataFrame(columns=costing.LAYER_COLUMNS).to_csv(tmp_path / "cost_layers.csv", index=False)
    assert table.layer_costs(results(tmp_path)).raw.empty and table.layer_costs(results(tmp_path)).note == ""


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "cost_layers.csv: not readable as CSV"),
        (pd.DataFrame([row()]).drop(columns="bound").to_csv(index=False), "cost_layers.csv: columns bound are missing"),
        (pd.DataFrame([row(ms="fast")]).to_csv(index=False), "cost_layers.csv: ms: found 'fast', expected a number"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    (tmp_path / "cost_layers.csv").write_text(content)
    with pytest.raises(ReportError, match=f"{message}.*; run `python -m pipelines.cost` again"):
        table.layer_costs(results(tmp_path))

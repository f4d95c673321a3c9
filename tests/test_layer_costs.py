"""Layers measured on their own: rows, layers that are wrong or too large, the stage's file."""

import csv
import json
import math
import re
import sys
from dataclasses import replace

import pytest
import torch

from pipelines.costs import costing, layer_cases, layer_costs, measure
from pipelines.evidence import schemas
from pipelines.profile import Params
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
        assert set(row) == set(schemas.TABLES["cost_layers"].columns)
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
    monkeypatch.setattr(layer_cases, "BESIDE", ())
    content = tiny_params()
    content["method"] = {"full": content["method"]["full"]}
    content["cost"] = {"processes": 1, "rounds": 1, "inference_batch": 4, "block_s": 1e-6, "layers": asked}
    costing.run(Params(**content), "cpu")
    with open(workdir / "results/tiny/cost_layers.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == list(schemas.TABLES["cost_layers"].columns) and len(rows) == asked
    with open(workdir / "results/tiny/cost.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["full"]
    assert ("layers" in json.loads((workdir / "results/tiny/cost.json").read_text())["ceiling"]) is asked
    assert ("layers: selective scan, a small Vim" in capsys.readouterr().out) is asked


# Reference implementations


@pytest.mark.parametrize("place, package", [(0, "mambapy"), (1, "inkan")])
def test_a_reference_implementation_takes_the_references_place(place, package):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install -e '.[reference]')")
    case = replace(TINY[place], package=package)
    found = layer_costs.measure_all(CPU, rounds=2, block_s=1e-6, cases=[case])
    assert found["left_out"] == {} and 0 <= found["rows"][0]["error"] <= 1e-4


@pytest.mark.parametrize("package", ["mambapy", "inkan"])
def test_a_package_that_is_missing_is_left_out_with_a_reason(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.pscan", raising=False)
    cases = [replace(TINY[0 if package == "mambapy" else 1], package=package)]
    found = layer_costs.measure_all(CPU, rounds=1, block_s=1e-6, cases=cases)
    assert found["rows"] == [] and re.search(r"package '.+' is not installed: pip install", *found["left_out"].values())


def test_every_package_has_a_case_and_every_case_a_package():
    assert {case.package for case in layer_cases.BESIDE} == set(layer_cases.PACKAGES)

"""`pipelines.export`: files that run without this suite, against the network they were made from."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import export
from pipelines.prediction import ensemble, exporting
from pipelines.profile import load


def pictures(count):
    return np.random.default_rng(count).integers(0, 256, (count, 32, 32), dtype=np.uint8)


def expected(method, images):
    networks = ensemble.load(load("params.yaml"), method, [0], "cpu", merged=False)
    return networks.probabilities(networks.normalised(images))[0]


def given(images):
    """RGB in 0..1, as the exported file takes it."""
    return torch.from_numpy(images).float().div(255).unsqueeze(1).repeat(1, 3, 1, 1)


@pytest.mark.parametrize("method", ["full", "colora"])
def test_plain_torch_runs_the_program(here, tmp_path, method, capsys):
    out = tmp_path / "network.pt2"
    assert export.main(["--method", method, "--seed", "0", "--format", "torch", "--out", str(out)]) == 0
    assert f"{method} seed 0" in capsys.readouterr().out
    facts = {"model.json": ""}
    program = torch.export.load(out, extra_files=facts)
    for count in (1, 5):
        images = pictures(count)
        torch.testing.assert_close(program.module()(given(images)), expected(method, images), atol=1e-5, rtol=0)
    facts = json.loads(facts["model.json"])
    assert facts["classes"] == ["CNV", "DME", "NORMAL"] and facts["preprocessing"]["size"] == 32
    # Merged: no more parameters than the plain network has.
    assert not [name for name in program.state_dict if "pointwise" in name or "depthwise" in name]


def test_onnx_runtime_runs_the_file(here, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install -e '.[test]')")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install -e '.[test]')")
    out = tmp_path / "network.onnx"
    assert export.main(["--method", "colora", "--seed", "0", "--format", "onnx", "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = pictures(count)
        (found,) = session.run(None, {"images": given(images).numpy()})
        np.testing.assert_allclose(found, expected("colora", images), atol=1e-5)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["model.json"])
    assert facts["method"] == "colora" and facts["classes"] == ["CNV", "DME", "NORMAL"]


def test_a_file_that_computes_something_else_is_not_written(here, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install -e '.[test]')")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install -e '.[test]')")
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    out = tmp_path / "network.onnx"
    assert export.main(["--method", "full", "--seed", "0", "--format", "onnx", "--out", str(out)]) == 1
    assert "ONNX Runtime's probabilities differ by" in capsys.readouterr().err and not out.exists()


def test_a_missing_package_is_named(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "network.onnx"
    assert export.main(["--method", "full", "--seed", "0", "--format", "onnx", "--out", str(out)]) == 1
    assert "--format onnx needs the package onnxruntime" in capsys.readouterr().err
    assert not Path(out).exists()

"""ONNX files of injected, merged and unloaded models, run by ONNX Runtime."""

import io

import pytest
import torch
from torch import nn

import colora

pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install -e '.[test]')")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install -e '.[test]')")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install -e '.[test]')")


def model():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=2, dilation=2, groups=2, bias=False), nn.Flatten(), nn.Linear(6 * 36, 2),
    ).eval()  # fmt: skip
    colora.inject(network)
    for place in (0, 3):
        nn.init.normal_(network[place].depthwise, std=0.3)
    return network


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("form", ["injected", "merged", "unloaded"])
def test_onnx_runtime_computes_the_same(form):
    network = model()
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    expected = network(x).detach()
    {"injected": lambda _: None, "merged": colora.merge, "unloaded": colora.merge_and_unload}[form](network)
    program = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
    file = io.BytesIO()
    onnx.save(program.model_proto, file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)

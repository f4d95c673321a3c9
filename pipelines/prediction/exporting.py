"""A trained network as one file that runs without this suite: a torch.export program, or ONNX."""

import io
import json
import warnings
from pathlib import Path

import torch
from torch import nn

from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params
from pipelines.training import saved

CARD = "model.json"  # of the facts within the file: an extra file of torch's, a metadata property of ONNX's
TOLERANCE = 1e-4  # of probabilities, between ONNX Runtime and torch


class Exported(nn.Module):
    """The network between what is easy to give and easy to read: RGB in 0..1 (B, 3, H, W) to probabilities (B, C)."""

    def __init__(self, network: nn.Module, card: saved.ModelCard):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(card.std).view(1, 3, 1, 1))

    def forward(self, images):
        return self.network((images - self.mean) * self.scale).softmax(1)


def export(params: Params, method: str, seed: int, kind: str, out: Path) -> None:
    """Write the network of one run, CoLoRA merged, in float32, for any number of images; `kind` is "torch" or "onnx".

    Input and output are those of `Exported`; model.json, within the file, says classes and preprocessing.

    Raises:
        UserError: no such network, a package is missing, or ONNX Runtime computes something else.
        OSError: `out` cannot be written.
    """
    params.settings(method)  # raises, with near names
    network, card = saved.load(params.model_dir(method, seed), params, torch.device("cpu"))
    model = Exported(network.to(memory_format=torch.contiguous_format), card).eval()
    size = card.image_size
    facts = card.model_dump(include={"profile", "method", "seed", "classes", "image_size", "preprocessing"})
    facts |= {"input": f"float32 (B, 3, {size}, {size}), RGB in 0..1", "output": "probabilities (B, classes)"}
    write = {"torch": _torch, "onnx": _onnx}[kind]
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    content = write(model, images, json.dumps(facts, indent=1))
    records.write_atomically(out, lambda file: file.write(content))
    print(f"{out}: {method} seed {seed}, {len(content):,} bytes; {facts['input']} to {facts['output']}")


def _program(model: nn.Module, images: torch.Tensor):
    with torch.no_grad():
        return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _torch(model: nn.Module, images: torch.Tensor, facts: str) -> bytes:
    file = io.BytesIO()
    torch.export.save(_program(model, images), file, extra_files={CARD: facts})
    return file.getvalue()


def _onnx(model: nn.Module, images: torch.Tensor, facts: str) -> bytes:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--format onnx needs the package {error.name}, which is not installed; `pip install '.[export]'`"
        ) from None
    with warnings.catch_warnings(action="ignore"):  # of torch's exporter about its own code
        program = torch.onnx.export(
            _program(model, images), input_names=["images"], output_names=["probabilities"], dynamo=True, verbose=False
        )
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = CARD, facts
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (1, 2, 3):
        tried = torch.rand(count, *images.shape[1:], generator=torch.Generator().manual_seed(count))
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: tried.numpy()})[0])
        with torch.inference_mode():
            away = (found - model(tried)).abs().max().item()
        if not away <= TOLERANCE:
            raise UserError(
                f"--format onnx: ONNX Runtime's probabilities differ by {away:.2g}, expected at most {TOLERANCE:g}; "
                "nothing was written; use --format torch"
            )
    return content

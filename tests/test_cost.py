"""What the cost stage measures: FLOPs of steps, files, and runs that go on."""

import csv
import json
import math
import pickle
import re
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from colora.conv import ColoraConv2d
from pipelines import cost
from pipelines.costs import benches, contenders, costing, layer_costs, measure
from pipelines.evidence import schemas
from pipelines.profile import Params
from pipelines.training import counting
from tests.conftest import FAMILIES, tiny_params

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
METHODS = ("full", "head-only", "colora-blocks2-5")


@pytest.fixture(autouse=True)
def _small_ceiling(monkeypatch):
    monkeypatch.setitem(measure.CEILING, "cpu", (256, 2**18, (2, 16, 16)))


def profile(methods=METHODS, section=None, **changes) -> Params:
    content = tiny_params(**changes)
    content["method"] = {name: content["method"][name] for name in methods} if isinstance(methods, tuple) else methods
    content["cost"] = {"processes": 1, "rounds": 6, "inference_batch": 4, "block_s": 1e-6, **(section or {})}
    return Params(**content)


def lineup(params, batch_size=8):
    return contenders.lineup(params, list(params.method), image_size=32, batch_size=batch_size)


def bench(contender, **options):
    return benches.Bench(contender, CPU, **{"num_classes": 4, "block_s": 1e-6, "inference_batch": 0, **options})


def test_ratios_are_taken_within_rounds():
    slow_half = {"step": [1.0, 1.0, 1.0, 10.0, 10.0, 10.0]}
    half = {"step": [0.5, 0.5, 0.5, 5.0, 5.0, 5.0]}
    assert benches._ratio("r", half, slow_half, "step", "step") == {"r": 0.5, "r_lo": 0.5, "r_hi": 0.5}


# FLOPs


@pytest.mark.parametrize("name", ["conv_lora", "colora", "vit", "medmamba", "kan_head"])
def test_forward_flops_are_those_of_the_parameter_table(name):
    params = profile({name: FAMILIES[name]})
    contender = contenders._method(params, name, 32, 2)
    model = contenders.build(contender, 4).eval()
    with torch.no_grad():
        found = measure.flops(lambda: model(torch.zeros(1, 3, 32, 32)))
    assert found == counting.count_method(name, contender.settings, num_classes=4, image_size=32)["flops"]


def layer_flops(model):
    """{name: floating-point operations of its forward pass} of convolutions and linear layers, for one image."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(
                lambda m, _, out, name=name: found.__setitem__(
                    name, 2 * m.weight.numel() * (math.prod(out.shape[2:]) if out.dim() == 4 else 1)
                )
            )
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    return found


def test_flops_of_a_training_step_counted_by_hand(monkeypatch):
    monkeypatch.setattr("colora.conv.kernel_is_cheaper", lambda *shape: False)  # gradients by the two-branch form
    params, batch = profile(), 8
    full, transfer, ours, *_ = lineup(params, batch)
    layers = layer_flops(contenders.build(full, 4))
    first, body = next(iter(layers)), sum(n for name, n in layers.items() if name.startswith("backbone"))
    head = sum(layers.values()) - body
    # Everything once forward and twice backward; but nobody needs the gradient of the images.
    assert bench(full).flops()[1] == batch * (3 * (body + head) - layers[first])
    # Nor does anybody need that of a frozen body's output.
    entry = layers[next(name for name in layers if name.startswith("head"))]
    assert bench(transfer).flops()[1] == batch * (body + 3 * head - entry)
    model = contenders.build(ours, 4)
    adapted = {name: m for name, m in model.named_modules() if isinstance(m, ColoraConv2d)}
    expected = body + 3 * head
    for place, (name, layer) in enumerate(adapted.items()):
        forward = layers[name]
        inputs, area = layer.in_channels, math.prod(layer.kernel_size)
        small = forward / area + 2 * forward / inputs + forward / area  # z, both depthwise gradients, pointwise's
        expected += small + (forward if place else 0)  # what comes before the first is frozen
    assert bench(ours).flops()[1] == pytest.approx(batch * expected, rel=1e-12)


# Runs


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of torch's own tracing
def test_every_network_of_a_compiled_recipe_runs_compiled(workdir, monkeypatch):
    """And its inference, which the cost stage runs as it is, is not counted."""
    compiled, ran = [], set()

    def backend(graph, inputs):
        compiled.append(graph)
        return lambda *args: ran.add(len(compiled)) or graph(*args)

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: original(network, backend=backend))
    recipe = {**tiny_params()["train"], "compile": True}
    costing.run(profile(section={"batch_sizes": [4, 6], "rounds": 1}, train=recipe), "cpu")
    assert len(compiled) == 2 * 5  # three methods and two references at two batch sizes, each with a graph of its own
    found = {row["setting"]: [] for row in read_rows("results/tiny/cost.csv")}
    for row in read_rows("results/tiny/cost.csv"):
        found[row["setting"]].append((row["compile"], bool(row["inference_ms"]), bool(row["input_ratio"])))
    assert found == {f"32px-b{batch}": [("True", False, False)] * 5 for batch in (4, 6)}


def test_inference_is_measured_beside_a_compiled_method(workdir, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    methods = {"full": {"family": "full"}, "head-only": {"family": "head_only", "train": {"compile": True}}}
    costing.run(profile(methods, {"rounds": 1}), "cpu")
    full, transfer, whole = read_rows("results/tiny/cost.csv")
    assert full["compile"] == "False" and full["input_ratio"]
    assert full["inference_batch"] == "4" and full["inference_ratio"] == full["inference_batch_ratio"] == "1"
    for row in (transfer, whole):
        assert (row["compile"], row["inference_batch"], row["inference_ms"]) == ("True", "", "")


def test_points_of_the_growth_sweeps_are_left_out_one_by_one(workdir, monkeypatch):
    def measure_all(label, lineup, device, **options):
        rows = [
            {"sweep": c.sweep, "method": c.name, "image_size": c.image_size, "batch_size": c.train.batch_size,
             "rank": c.settings.get("rank", math.nan), "step_ratio": 1.0, "step_ratio_lo": 1.0, "step_ratio_hi": 1.0,
             "step_ms": 1.0, "peak_mib": 1.0, "peak_ratio": 1.0}
            for c in lineup if (c.name, c.train.batch_size, c.settings.get("rank")) not in left_out
        ]  # fmt: skip
        return {
            "rows": rows,
            "ceiling": {},
            "left_out": {name: "out of memory" for name, *_ in left_out},
        }

    left_out = {("full", 8, None), ("conv-lora-r8", 16, 2)}
    monkeypatch.setattr(benches, "measure_all", measure_all)
    growth = {"methods": ["full", "conv-lora-r8"], "batch_sizes": [4, 8], "ranks": [2, 4]}
    costing.run(profile(("full", "conv-lora-r8"), {"growth": growth}), "cpu")
    found = [(r["sweep"], r["method"], r["batch_size"], r["rank"]) for r in read_rows("results/tiny/cost_growth.csv")]
    assert found == [
        ("batch", "full", "4", ""), ("rank", "full", "16", ""), ("batch", "conv-lora-r8", "4", "8"),
        ("batch", "conv-lora-r8", "8", "8"), ("rank", "conv-lora-r8", "16", "4"),
    ]  # fmt: skip


def test_layers_that_fail_leave_the_earlier_table(workdir, monkeypatch):
    def fail(*args, **options):
        raise ValueError("a layer does not compute what its reference does")

    monkeypatch.setattr(benches, "measure_all", fake_measurement([]))
    monkeypatch.setattr(layer_costs, "measure_all", fail)
    path = workdir / "results/tiny/cost_layers.csv"
    path.parent.mkdir(parents=True)
    path.write_text("layer\nearlier\n")
    with pytest.raises(ValueError, match="a layer does not"):
        costing.run(profile(section={"layers": True}), "cpu")
    assert path.read_text() == "layer\nearlier\n" and read_rows("results/tiny/cost.csv")
    costing.run(profile(), "cpu")  # which asks for none
    assert read_rows(path) == []
    costing.run(Params(**tiny_params()))
    assert read_rows("results/tiny/cost.csv")


def test_a_network_that_cannot_be_compiled_is_left_out(workdir, monkeypatch, capsys):
    def backend(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: original(network, backend=backend))
    methods = {"full": {"family": "full"}, "compiled": {"family": "full", "train": {"compile": True}}}
    costing.run(profile(methods, {"rounds": 1}), "cpu")
    left = json.loads(Path("results/tiny/cost.json").read_text())["left_out"]
    assert "No working C++ compiler found" in left["32px-b16"]["compiled"]
    assert [row["method"] for row in read_rows("results/tiny/cost.csv")] == ["full"]


def test_where_all_is_left_out_that_is_said_in_place_of_a_table(workdir, monkeypatch, capsys):
    found = {"rows": [], "ceiling": {}, "left_out": {"full": "no working C++ compiler"}}
    monkeypatch.setattr(benches, "measure_all", lambda *args, **options: found)
    costing.run(profile({"full": {"family": "full"}}), "cpu")
    out = capsys.readouterr().out
    assert "none could be measured" in out and "Empty DataFrame" not in out
    assert read_rows("results/tiny/cost.csv") == []


def test_a_bench_trains_what_the_method_trains_and_merges_what_merges():
    full, _, ours, *_ = lineup(profile())
    made = bench(ours, inference_batch=4)
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    assert made.steps(2) > 0
    moved = {name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and moved <= {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert any("depthwise" in name for name in moved) and any("head" in name for name in moved)
    assert not any(isinstance(m, ColoraConv2d) for m in made.merged.modules())
    assert set(made.round()) == {
        "step",
        "fed",
        "inference 1",
        "inference 1 merged",
        "inference 4",
        "inference 4 merged",
    }
    assert set(bench(full, inference_batch=4).round()) == {"step", "fed", "inference 1", "inference 4"}
    assert set(bench(full).round()) == {"step"}


def test_balanced_class_weights_are_those_of_the_batch(workdir):
    recipe = {**tiny_params()["train"], "class_weights": "balanced"}
    made = bench(lineup(profile(train=recipe), batch_size=6)[0])  # labels 0, 1, 2, 3, 0, 1
    assert made.loss.weight.tolist() == [0.75, 0.75, 1.5, 1.5] and made.steps(1) > 0


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_card(params, card=None):
    counts = {"train": {"a": 30, "b": 20}, "val": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}
    card = {"classes": ["a", "b"], "seeds": {"all": {"counts": counts}}} if card is None else card
    folder = params.results_dir / "data"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card))


def test_files_of_a_run(workdir, capsys):
    growth = {"methods": ["full"], "batch_sizes": [4, 8], "rounds": 2}
    methods = {name: tiny_params()["method"][name] for name in METHODS}
    methods["half"] = {"family": "full", "train": {"precision": "bfloat16"}}
    params = profile(methods, {"growth": growth, "batch_sizes": [8]})
    write_card(params)
    results = costing.run(params, "cpu")
    rows = read_rows(workdir / "results/tiny/cost.csv")
    assert list(rows[0])[:24] == [
        "method", "role", "backbone", "image_size", "batch_size", "trainable", "step_ms", "step_ms_lo", "step_ms_hi",
        "step_ratio", "step_ratio_lo", "step_ratio_hi", "peak_mib", "peak_ratio", "images_per_s", "epoch_s", "flops",
        "ceiling_share", "inference_ms", "inference_merged_ms", "inference_ratio", "inference_ratio_lo",
        "inference_ratio_hi", "rounds",
    ]  # fmt: skip
    assert [(r["setting"], r["method"]) for r in rows] == [
        ("32px-b8", name) for name in (*methods, "colora-blocks2-5-two-branch", "colora-blocks2-5-peft-lora-r8")
    ]
    full, transfer, ours, half, two, _ = rows
    assert full["step_ratio"] == full["step_ratio_lo"] == full["peak_ratio"] == full["inference_ratio"] == "1"
    for row in rows:
        step, size = float(row["step_ms"]) / 1000, int(row["batch_size"])
        assert float(row["step_ms_lo"]) / 1000 <= step <= float(row["step_ms_hi"]) / 1000
        assert float(row["images_per_s"]) == pytest.approx(size / step, rel=1e-4)
        assert float(row["epoch_s"]) == pytest.approx(math.ceil(50 / size) * step, rel=1e-4)
    assert float(transfer["peak_ratio"]) < float(ours["peak_ratio"]) < 1
    assert float(ours["peak_ratio"]) == pytest.approx(float(ours["peak_mib"]) / float(full["peak_mib"]), rel=1e-4)
    assert ours["inference_merged_ms"] and not two["inference_merged_ms"]
    assert half["precision"] == "bfloat16" and half["step_ratio"] == "1"
    assert float(ours["peak_mib"]) < float(two["peak_mib"])
    # Merged, the method runs full fine-tuning's operators on an image; the two-branch form runs more.
    deployed = [(row["inference_operators"], row["inference_flops"]) for row in rows]
    assert deployed[2] == deployed[0] and float(two["inference_flops"]) > float(full["inference_flops"])
    assert two["inference_operators"] != full["inference_operators"]
    found = json.loads((workdir / "results/tiny/cost.json").read_text())
    assert set(found["ceiling"]["32px-b8"]) == {
        "bytes_per_s", "float32_flops_per_s", "float32_convolution_flops_per_s", "bfloat16_flops_per_s",
        "bfloat16_convolution_flops_per_s",
    }  # fmt: skip
    assert found["environment"]["torch"] == torch.__version__
    grown = read_rows(workdir / "results/tiny/cost_growth.csv")
    assert [(r["sweep"], r["batch_size"], r["rounds"]) for r in grown] == [("batch", "4", "2"), ("batch", "8", "2")]
    assert float(grown[0]["peak_mib"]) < float(grown[1]["peak_mib"])
    assert results["growth"]["rows"][0]["step_ms"] == pytest.approx(float(grown[0]["step_ms"]), rel=1e-4)
    assert not list(workdir.glob("checkpoints/**/*.json")) and "full" in capsys.readouterr().out


def fake_measurement(calls, stop_at=None):
    def measure_all(label, lineup, device, **options):
        calls.append(label)
        if label == stop_at:
            raise KeyboardInterrupt
        row = dict.fromkeys(schemas.TABLES["cost"].columns, 1.0)
        rows = [{**row, "method": c.name, "setting": label} for c in lineup]
        return {"rows": rows, "ceiling": {}, "left_out": {}}

    return measure_all


def test_an_interrupted_run_goes_on_and_other_settings_start_over(workdir, monkeypatch):
    calls = []
    machine = dict.fromkeys(("torch", "cpu", "threads", "gpu", "cuda", "driver"))
    monkeypatch.setattr(costing, "environment", lambda device: machine)
    monkeypatch.setattr(benches, "measure_all", fake_measurement(calls, stop_at="32px-b8"))
    params = profile(section={"batch_sizes": [4, 8]})
    write_card(params)
    with pytest.raises(KeyboardInterrupt):
        costing.run(params, "cpu")
    assert calls == ["32px-b4", "32px-b8"] and not (workdir / "results/tiny/cost.csv").exists()
    monkeypatch.setattr(benches, "measure_all", fake_measurement(calls))
    costing.run(
        profile(section={"batch_sizes": [4], "rounds": 7}), "cpu", ["full"]
    )  # more rounds: anew, and not written
    assert calls[2:] == ["32px-b4"] and not (workdir / "results/tiny/cost.csv").exists()
    costing.run(profile(section={"batch_sizes": [4], "rounds": 7}), "cpu", ["full"])
    assert calls.pop() == "32px-b4" and calls[3:] == []  # and measured again when asked again
    costing.run(params, "cpu")
    assert calls[3:] == ["32px-b8"] and len(read_rows(workdir / "results/tiny/cost.csv")) == 10
    costing.run(params, "cpu", again=True)  # no part is kept of a run that ended
    assert calls[4:] == ["32px-b4", "32px-b8"]


def test_whole_files_of_another_machine_are_kept_until_asked_again(workdir, monkeypatch, capsys):
    calls, path = [], workdir / "results/tiny/cost.json"
    machine = dict.fromkeys(("torch", "cpu", "threads", "gpu", "cuda", "driver")) | {"date": "2026-01-01"}
    monkeypatch.setattr(benches, "measure_all", fake_measurement(calls))
    monkeypatch.setattr(costing, "environment", lambda device: {**machine, "gpu": "Some GPU"})
    params, other = profile(), profile(train={**tiny_params()["train"], "batch_size": 4})
    costing.run(params, "cpu")
    monkeypatch.setattr(costing, "environment", lambda device: {**machine, "cpu": "Some CPU"})
    before = {file: file.read_bytes() for file in path.parent.glob("cost*")}
    capsys.readouterr()
    for section in (params, Params(**tiny_params())):  # with its section, and without any
        assert costing.run(section, "cpu") == {}
        assert f"{path.relative_to(workdir)}: kept, measured on Some GPU, 2026-01-01\n" in capsys.readouterr().out
    stored = json.loads(path.read_text())
    del stored["fingerprint"]
    path.write_text(json.dumps(stored))
    costing.run(other, "cpu")
    assert "2026-01-01, with settings that it does not name" in capsys.readouterr().out
    path.write_bytes(before[path])
    assert {file: file.read_bytes() for file in path.parent.glob("cost*")} == before and len(calls) == 1
    costing.run(other, "cpu")
    assert calls == ["32px-b16", "32px-b4"] and json.loads(path.read_text())["environment"]["cpu"] == "Some CPU"
    (path.parent / "cost_growth.csv").write_text("<<<<<<< HEAD\n")
    costing.run(other, "cpu")
    Path("params.yaml").write_text(yaml.safe_dump(other.model_dump(mode="json", exclude_none=True), sort_keys=False))
    assert cost.main(["--device", "cpu"]) == 0 and len(calls) == 3
    assert cost.main(["--device", "cpu", "--again"]) == 0 and len(calls) == 4


def test_references_that_cannot_be_made_are_left_out_and_named(workdir, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    built = contenders.build

    def build(contender, num_classes):
        if contender.form == "two-branch":
            raise torch.OutOfMemoryError("too large")
        return built(contender, num_classes)

    monkeypatch.setattr(contenders, "build", build)
    costing.run(profile(section={"rounds": 1}), "cpu")
    left = json.loads((workdir / "results/tiny/cost.json").read_text())["left_out"]["32px-b16"]
    assert left == {
        "colora-blocks2-5-two-branch": "out of memory on cpu",
        "colora-blocks2-5-peft-lora-r8": "the package 'peft' is not installed",
    }
    assert "left out" in capsys.readouterr().out
    rows = read_rows(workdir / "results/tiny/cost.csv")
    assert [row["method"] for row in rows] == list(METHODS)
    assert {row["step_ms_lo"] for row in rows} == {row["epoch_s"] for row in rows} == {""}  # one round; no data card


def test_without_a_section_the_files_have_no_row(workdir, capsys):
    params = Params(**tiny_params())
    assert costing.run(params) == {} and "no cost section" in capsys.readouterr().out
    assert read_rows(workdir / "results/tiny/cost.csv") == read_rows(workdir / "results/tiny/cost_growth.csv") == []
    assert json.loads((workdir / "results/tiny/cost.json").read_text())["ceiling"] == {}


def test_the_command_line_names_the_method_that_is_wrong(workdir, capsys):
    content = {**tiny_params(), "cost": {"rounds": 1}}
    content["method"]["full"]["blocks"] = [1, 2]
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert cost.main(["--method", "full", "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: method 'full': family 'full' has no option 'blocks'")
    assert cost.main(["--method", "fulll", "--device", "cpu"]) == 1
    assert "did you mean 'full'" in capsys.readouterr().err


class Inline:
    """A pool of one new process but for the new process, which takes ten seconds to import torch."""

    def __init__(self, workers, mp_context):
        assert (workers, mp_context.get_start_method()) == (1, "spawn")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, *call, **options):
        (function, *arguments), options = pickle.loads(pickle.dumps((call, options)))
        done = Future()
        done.set_result(function(*arguments, **options))
        return done


def test_processes_are_put_together_by_the_ratios_of_each(workdir, monkeypatch, capsys):
    monkeypatch.setattr(costing, "ProcessPoolExecutor", Inline)
    params = profile(("full", "colora-blocks2-5"), {"processes": 2, "rounds": 1, "batch_sizes": [4]})
    results = costing.run(params, "cpu")
    full, ours, *_ = read_rows(workdir / "results/tiny/cost.csv")
    assert full["processes"] == "2" and full["step_ratio"] == full["step_ratio_lo"] == full["step_ratio_hi"] == "1"
    assert 0 < float(ours["step_ratio_lo"]) < float(ours["step_ratio"]) < float(ours["step_ratio_hi"])
    assert results["32px-b4"]["rows"][1]["step_ratio"] == pytest.approx(float(ours["step_ratio"]), rel=1e-4)
    assert not list(workdir.glob("checkpoints/**/*.json"))
    assert re.search(r"^32px-b4, process 2 of 2: \d+ s$", capsys.readouterr().out, re.MULTILINE)


def test_what_one_process_left_out_is_left_out_of_all():
    def result(ratio, *names, **left_out):
        rows = [
            {"sweep": "", "method": name, "image_size": 32, "batch_size": 4, "rank": math.nan, "step_ratio": ratio,
             "step_ratio_lo": 0.0, "step_ratio_hi": 9.0, "peak_mib": 10 * ratio, "flops": 7} for name in names
        ]  # fmt: skip
        return {"rows": rows, "ceiling": {"copy": ratio}, "left_out": left_out}

    found = benches.combined([result(1.0, "a", "b"), result(4.0, "a", b="memory"), result(2.0, "a", "b")])
    (row,) = found["rows"]
    assert row["method"] == "a" and found["left_out"] == {"b": "memory"} and found["ceiling"] == {"copy": 2.0}
    assert row["step_ratio"] == pytest.approx(2) and (row["peak_mib"], row["flops"], row["processes"]) == (20, 7, 3)
    half = 4.302653 * math.log(2) / math.sqrt(3)  # Student's quantile for two degrees of freedom
    assert row["step_ratio_hi"] == pytest.approx(2 * math.exp(half), rel=1e-5)


@pytest.mark.parametrize(
    "card", [{}, {"classes": ["a"], "seeds": {}}, {"classes": None, "seeds": {"0": {"counts": {}}}}]
)
def test_an_empty_data_card_is_one_clear_error(workdir, capsys, card):
    write_card(profile(), card)
    Path("params.yaml").write_text(yaml.safe_dump({**tiny_params(), "cost": {"rounds": 1}}))
    assert cost.main(["--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: results/tiny/data/card.json: no classes, or no numbers")

"""Results of a made-up profile, summarised by the pipeline itself: five folds, external data, probes, made-up costs."""

import os

import pytest

from pipelines.evidence import schemas
from pipelines.evidence.summary import summarise
from pipelines.profile.data import External
from report.reading import load
from tests import fake_results as fake

METHODS = ("full", "head-only", "bitfit", "adapters", "colora-blocks2-5", "colora-block5", "vit-full", "medmamba")
COST = {
    "role": "method", "backbone": "vgg16", "image_size": 64, "batch_size": 16, "setting": "64px-b16",
    "precision": "float32",
    "compile": False, "rounds": 9,
}  # fmt: skip
COSTS = [  # method, family, role, step (ms), its ratio to full fine-tuning, its interval, peak (MiB), its ratio
    ("full", "full", "method", 500.0, 1.0, (1.0, 1.0), 800.0, 1.0),
    ("head-only", "head_only", "method", 150.0, 0.3, (0.28, 0.33), 240.0, 0.3),
    ("colora-blocks2-5", "colora", "method", 400.0, 0.8, (0.75, 0.85), 480.0, 0.6),
    ("colora-blocks2-5-peft-lora-r8", "conv_lora", "reference", 450.0, 0.9, (0.85, 0.96), 560.0, 0.7),
]


def write_costs(directory):
    """cost.csv and cost_growth.csv: time grows with the batch to the power of 0.8 and memory to that of 0.5."""
    rows = [
        {**COST, "method": method, "family": family, "role": role, "step_ms": step, "step_ratio": ratio,
        "step_ratio_lo": low,
         "step_ratio_hi": high, "peak_mib": peak, "peak_ratio": share}
        for method, family, role, step, ratio, (low, high), peak, share in COSTS
    ]  # fmt: skip
    grown = [
        {**COST, "sweep": "batch", "method": row["method"], "family": row["family"], "batch_size": batch,
         "step_ms": row["step_ms"] * (batch / 16) ** 0.8, "peak_mib": row["peak_mib"] * (batch / 16) ** 0.5}
        for row in rows[:3] for batch in (8, 16, 32)
    ]  # fmt: skip
    for row in grown:
        row.pop("setting")
    schemas.frame("cost", rows).to_csv(directory / "cost.csv", index=False)
    schemas.frame("cost_growth", grown).to_csv(directory / "cost_growth.csv", index=False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """results/fake/ of the profile."""
    where = tmp_path_factory.mktemp("report")
    params = fake.params(METHODS, seeds=range(5), probe={"seeds": [0, 1]})
    data = params.data.model_copy(update={"external": [External(name="clinic-b", path="elsewhere")]})
    params = params.model_copy(update={"data": data})
    here = os.getcwd()
    os.chdir(where)
    try:
        fake.write_profile(params, folds=5, n_test=80)
        fake.write_patients(params, 400)
        summarise(params)
        write_costs(params.results_dir)
    finally:
        os.chdir(here)
    return where / params.results_dir


@pytest.fixture(scope="session")
def results(folder):
    return load(folder)

"""The benchmark of how threads wait: the policy reaches the process, its CPU time is counted, pairs take turns."""

import subprocess

import pytest

from pipelines.costs import waiting


def test_a_run_is_under_its_policy_and_its_cpu_time_is_its_own(monkeypatch):
    monkeypatch.setattr(waiting, "STEPS", (
        "import os, time\nassert os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'\n"
        "while time.process_time() < 0.3 * {steps}: pass\ntime.sleep(0.3)"
    ))  # fmt: skip
    row = waiting.run("ACTIVE", 1)
    assert row["policy"] == "ACTIVE" and 0.3 <= row["cpu_s"] <= row["wall_s"] - 0.29
    with pytest.raises(subprocess.CalledProcessError):
        waiting.run("PASSIVE", 1)


def test_each_policy_goes_first_as_often_as_second(monkeypatch):
    monkeypatch.setattr(waiting, "run", lambda policy, steps: {"policy": policy, "wall_s": 1.0, "cpu_s": 1.0})
    order = [row["policy"] for row in waiting.measure(4, 1, busy=1)]
    assert order == ["ACTIVE", "PASSIVE", "PASSIVE", "ACTIVE"] * 2

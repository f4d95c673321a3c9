"""The results files' columns: written and read by one list, and every way to miss them is named."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.evidence import schemas
from pipelines.files.errors import UserError


def write(folder, name, frame):
    frame.to_csv(folder / f"{name}.csv", index=False)
    return schemas.read(folder, name)


def test_what_is_written_is_read_back(tmp_path):
    rows = [{"method": "None", "seed": 0, "recall": 0.5}, {"method": "nan", "seed": 1, "nll": np.inf}]
    found = write(tmp_path, "scores", schemas.frame("scores", rows))
    assert list(found) == list(schemas.TABLES["scores"].columns)
    assert found.method.tolist() == ["None", "nan"] and found.seed.tolist() == [0, 1]  # words stay words
    assert found.nll.iloc[1] == np.inf and np.isnan(found.recall.iloc[1])


@pytest.mark.parametrize("name", schemas.TABLES)
def test_every_table_can_be_empty(tmp_path, name):
    assert write(tmp_path, name, schemas.frame(name, [])).empty


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(UserError, match=r"scores.csv: no such file; run `python -m pipelines.summarise` first"):
        schemas.read(tmp_path, "scores")
    with pytest.raises(UserError, match="scores.csv: no column colour in its table"):
        schemas.frame("scores", [{"method": "full", "colour": "red"}])
    good = schemas.frame("scores", [{"method": "full", "seed": 0}])
    with pytest.raises(UserError, match=r"scores.csv: no column brier, nll; run"):
        write(tmp_path, "scores", good.drop(columns=["brier", "nll"]))
    with pytest.raises(UserError, match=r"column seed should hold numbers, found 'first'"):
        write(tmp_path, "scores", good.assign(seed="first"))
    with pytest.raises(UserError, match=r"column method is empty in row 1"):
        write(tmp_path, "scores", good.assign(method=None))
    (tmp_path / "scores.csv").write_bytes(b"\xff\x00,\n")
    with pytest.raises(UserError, match="not readable as CSV"):
        schemas.read(tmp_path, "scores")


def test_every_column_has_a_kind_and_a_meaning():
    for name, table in schemas.TABLES.items():
        assert table.row and table.command.startswith("python -m pipelines.")
        assert all(table.columns.values()) and table.words <= set(table.columns), name


def test_dvc_knows_every_file_that_the_commands_write():
    stages = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]
    for stage in ("summarise", "cost"):
        command = f"python -m pipelines.{stage}"
        written = {f"{name}.csv" for name, table in schemas.TABLES.items() if table.command == command}
        outs = {Path(name).name for entry in stages[stage]["outs"] for name in entry}
        assert stages[stage]["cmd"] == command and written == {name for name in outs if name.endswith(".csv")}
    metrics = [name for stage in stages.values() for entry in stage.get("metrics", []) for name in entry]
    assert metrics == ["results/${profile}/metrics.json"]

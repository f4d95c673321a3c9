"""The CSV source: one file and one patient in two spellings, and the lines that errors name."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.errors import DataError
from pipelines.data.sources import manifest
from tests.test_own_scans import classes


@pytest.fixture
def rows(workdir):
    """image,label,patient of 24 images in scans/, lines 2 to 25 of a list."""
    files = sorted(classes(workdir / "scans").rglob("*.png"))
    return [f"{file.relative_to(workdir / 'scans')},{file.parent.name},{file.stem.split('-')[1]}" for file in files]


def write(lines, header="image,label,patient"):
    Path("scans/list.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return Path("scans/list.csv")


def test_labels_and_patients_in_two_unicode_forms_are_the_same(rows):
    lines = [row.replace(",A,", ",O\u0308dem,").replace(",10", ",Mu\u0308ller") for row in rows]
    lines[0] = rows[0].replace(",A,", ",Ödem,")
    lines[-1] = rows[-1].replace(",15", ",Müller")
    found = manifest.listing(write(lines))
    assert found.classes == ["B", "Ödem"] and np.bincount(found.labels).tolist() == [12, 12]
    assert (found.patients == "Müller").sum() == 3 and len(set(found.patients)) == 12


@pytest.mark.parametrize("spelling", ["./A/A-0-0.png", "B/../A/A-0-0.png", "{}/scans/A/A-0-0.png", "linked.png"])
def test_one_file_in_two_spellings_is_named_twice(rows, workdir, spelling):
    os.symlink("A/A-0-0.png", "scans/linked.png")
    path = write([*rows, f"{spelling.format(workdir)},A,99"])
    with pytest.raises(DataError, match=r"names 1 images more than once: .*\(lines 2 and 26\); remove the others"):
        manifest.listing(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [r[0], "", "  ", ",,", r[1].replace(",A,", ",,")], "line 6 has no label; fill it in"),
        (lambda r: [r[0], "", f"{r[1]},"], "line 4 has 4 values, the first line names 3; .*take away a comma"),
        (lambda r: [r[0], "A,1.png,A,0"], "line 3 has 4 values, .*put a value that holds a comma in quotes"),
        (lambda r: [*r, '"A/A-0-0.png,A,0'], "not a CSV file in UTF-8"),
        (lambda r: [*r, f"{Path.cwd()}/elsewhere.png,A,0"], "elsewhere.png: leads to .*elsewhere.png, outside scans"),
    ],
)  # fmt: skip
def test_errors_name_the_line_and_the_cause(rows, change, message):
    Path("elsewhere.png").write_bytes(Path("scans/A/A-0-0.png").read_bytes())
    with pytest.raises(DataError, match=message):
        manifest.listing(write(change(rows)))


def test_a_column_named_twice_is_refused_and_other_columns_are_left_alone(rows):
    with pytest.raises(
        DataError, match="expected one column 'label' in the first line, found 'image', 'label', 'label'"
    ):
        manifest.listing(write(rows, "image,label,label"))
    lines = [f'{row},"a, b",' for row in rows]
    found = manifest.listing(write([*lines[:-1], rows[-1]], "image,label,patient,note,note"))
    assert found.patients.tolist() == manifest.listing(write(rows)).patients.tolist()
    Path("scans/list.csv").write_bytes(b"")
    with pytest.raises(DataError, match="expected one column 'image' in the first line, found nothing"):
        manifest.listing(Path("scans/list.csv"))
    with pytest.raises(DataError, match="expected at least two labels, found 0"):
        manifest.listing(write([]))

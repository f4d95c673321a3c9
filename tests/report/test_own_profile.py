"""A report on somebody's own images: their methods, names and classes, and nothing of what the paper declared."""

import re

import numpy as np
import pandas as pd
import pytest

from pipelines.evidence import schemas
from report import drawing, pages, sections
from report.pages import charts
from report.sections import clinical, confusion
from tests.report import made

METHODS = ("full", "colora-block5")  # one of the paper's comparators, and no method of its claims
MANY = [f"diagnosis number {place} of the atlas" for place in range(40)]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Two methods, of which the first never names DRUSEN, and no run of any other."""
    rows = [
        {"method": method, "true": true, "predicted": called, "count": 9 * ((method, called) != ("full", "drusen"))}
        for method in METHODS for true in made.CLASSES for called in made.CLASSES
    ]  # fmt: skip
    absent = [made.contrast(name, float("nan"), higher="not tested", runs=None) for name in made.COMPARATORS]
    folder = made.write(
        tmp_path_factory.mktemp("own") / "results" / "clinic", METHODS, confusion=rows, contrasts=absent
    )
    return pages.read(folder)


def test_all_methods_are_shown_and_none_of_the_papers_is_missed(own):
    assert own.declared == [] and own.leading() == list(METHODS)
    assert pages.answer(own, []).not_run == []
    figure = next(part for part in sections.build(own) if part.name == "confusion").figure
    assert [axis.get_title("left") for axis in figure.axes if axis.get_visible()] == list(METHODS)
    assert [line["first"] for line in charts.curves(own)["methods"]] == [True, True]


def test_a_class_that_a_method_never_names_is_marked(own, tmp_path):
    assert own.never_named == {"full": ["drusen"]}
    page = pages.build(own, tmp_path)
    for text in (page.with_name("README.md").read_text(), page.read_text()):
        assert "† Named for no test image: drusen by full." in text
        assert "full †" in text and "colora-block5 †" not in text
    place = own.methods.index.get_loc("full")  # by which the page's filter finds the row
    assert re.search(rf'<tr[^>]*data-method="{place}"[^>]*>\s*<t[hd][^>]*>[^/]*full †', text)


def counted(classes):
    return pd.DataFrame([
        {"method": "m", "true": true, "predicted": called, "count": 3 if true == called else 1}
        for true in classes for called in classes
    ])  # fmt: skip


def test_forty_classes_have_numbers_at_the_axes_and_a_row_each():
    share = confusion.matrix(counted(MANY), "m")
    axis = confusion.figure({"m": share}, {"m": "black"}).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [str(place) for place in range(1, 41, 5)]
    table = confusion.recall(counted(MANY), ["m"], "")
    assert list(table.text.Class) == MANY and list(table.text["No."]) == [str(place) for place in range(1, 41)]
    assert table.raw.shape == (1, 41)


@pytest.mark.parametrize("count", [4, 40])
def test_clinical_tables_stay_as_wide_as_a_page(count):
    classes = MANY[:count]
    rows = [{"method": "m", "level": "image", "measure": "kappa", "runs": 3, "value": 0.5, "lo": 0.4, "hi": 0.6}]
    rows += [
        {"method": "m", "level": "image", "class": name, "measure": measure, "runs": 3, "value": place / 100}
        for place, name in enumerate(classes) for measure in ("auc", "average_precision", "sensitivity")
    ]  # fmt: skip
    found = clinical.tables(schemas.frame("clinical", rows), ["m"], "")
    assert all(len(table.text.columns) <= 2 + 1 + 3 * clinical.SHOWN for table in found)
    told = " ".join(found[-1].text.astype(str).to_numpy().ravel())
    assert f"{(count - 1) / 100:.3f}" in told and len(found) == 1 + (count > clinical.SHOWN)


def test_roc_stands_beside_precision_and_recall():
    x = np.linspace(0, 1, 5)
    rows = [
        {"method": "m", "class": name, "curve": curve, "x": at, "y": at / 2}
        for name in MANY[:3] for curve in clinical.AXES for at in x
    ]  # fmt: skip
    with drawing.look():
        figure = clinical.figure(schemas.frame("roc", rows), ["m"], pd.DataFrame({"color": ["black"]}, index=["m"]))
    assert [axis.get_ylabel() for axis in figure.axes] == ["True positive rate", "Precision"] * 3
    for place, axis in enumerate(figure.axes):
        np.testing.assert_allclose(axis.lines[0].get_ydata(), x / 2)
        assert axis.get_title("left").replace("\n", " ") == (MANY[place // 2] if place % 2 == 0 else "")

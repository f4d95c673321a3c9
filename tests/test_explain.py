"""The choice of images and methods for Grad-CAM, the file that holds them, and the figure drawn from it."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

from pipelines.evidence import explaining
from pipelines.evidence.summary import summarise
from pipelines.runs.reading import SummaryError
from report import figures, gradcam, page, style
from report.results import ReportError, load
from tests import fake_results as fake
from tests.conftest import write_prepared

METHODS = ["full", "head-only", "colora-blocks2-5", "colora-block5"]


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(methods=METHODS, seeds=(0, 1), n_test=40, probe=True, **more):
    """Probed runs of seed 1 and, where they are not there yet, the prepared data that they were tested on."""
    params = fake.params(methods, seeds=seeds, **({"probe": {"seeds": [1]}} if probe else {}), **more)
    fake.write_profile(params, n_test=n_test)
    with np.load(params.run_dir(methods[0], 1) / "predictions.npz") as test:
        labels = test["labels"]
    images = np.random.default_rng(0).integers(0, 256, (n_test, 32, 32), np.uint8)
    places = np.arange(n_test)
    write_prepared(params.data_dir, images, labels, {"train": places, "val": places, "test": places})
    return params


def written(params):
    with np.load(explaining.explain(params), allow_pickle=False) as archive:
        return dict(archive)


def sure(named, how_sure):
    """Probabilities (a, n, 4) of classes (a, n), the rest shared by the others."""
    named, how_sure = np.array(named), np.array(how_sure, float)
    found = np.repeat(((1 - how_sure) / 3)[..., None], 4, axis=2)
    np.put_along_axis(found, named[..., None], how_sure[..., None], axis=2)
    return found


def test_agreement_is_where_the_least_sure_method_is_surest():
    labels = np.array([0, 1, 2, 3, 0])
    named = np.tile(labels, (3, 1))
    named[2, 3] = 0  # one method is wrong on image 3, though the others are surest there
    how_sure = [[0.9, 0.99, 0.8, 1, 0.95], [0.9, 0.7, 0.8, 1, 0.95], [0.9, 0.99, 0.8, 1, 0.6]]
    agree, differ = explaining.choose(labels, sure(named, how_sure))
    assert agree == [0, 2, 1] and differ == [3]


def test_where_no_image_is_right_for_all_the_most_count():
    labels = np.array([0, 0, 1, 1])
    named = [[0, 1, 1, 3], [0, 1, 1, 2], [1, 1, 0, 1]]
    agree, _ = explaining.choose(labels, sure(named, np.full((3, 4), 0.9)), each=2)
    assert agree == [0, 2]


def test_disagreement_counts_pairs_and_then_how_sure_the_methods_are():
    labels = np.array([0, 1, 2, 3, 3])
    named = [[0, 1, 0, 3, 0], [1, 1, 1, 3, 1], [1, 2, 2, 3, 2], [1, 2, 3, 3, 3]]
    how_sure = np.full((4, 5), 0.9)  # differing pairs: 3, 4, 6, 0, 6
    agree, differ = explaining.choose(labels, sure(named, how_sure), each=1)
    assert agree == [3] and differ == [2]
    how_sure[:, 4] = 0.95
    assert explaining.choose(labels, sure(named, how_sure), each=1)[1] == [4]
    assert explaining.choose(labels, sure(named, how_sure), each=3)[1] == [4, 2, 1]


def test_true_classes_take_turns():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    how_sure = np.array([[0.99, 0.98, 0.97, 0.96, 0.9, 0.85, 0.8]] * 2)
    named = np.tile(labels, (2, 1))
    assert explaining.choose(labels, sure(named, how_sure)) == ([0, 4, 6], [])
    named[0] = 3
    assert explaining.choose(labels, sure(named, how_sure))[1] == [0, 4, 1], "not those chosen for agreement"


def test_one_method_agrees_with_itself():
    labels = np.array([0, 1])
    assert explaining.choose(labels, sure([[0, 2]], [[0.9, 0.9]])) == ([0], [])


def test_methods_one_a_family_and_kind_best_by_validation():
    every = list(fake.METHODS) + list(fake.MORE)
    params = fake.params(every, probe={})

    def runs(**best):
        return {
            method: [{"metrics": {"val": {"acc": best.get(method.replace("-", "_"), 0.5)}},
                   "settings": {**params.model, **fake.section(method)}}]
            for method in every
        }  # fmt: skip

    chosen = explaining.shown(params, runs(medmnist_resnet18=0.6, vit_bitfit=0.7, vim=0.6, adapters=0.4, bitfit=0.8))
    assert chosen == [
        "full", "head-only", "bitfit", "colora-blocks1-5", "vit-bitfit", "vim", "kan-head", "medmnist-resnet18",
    ]  # fmt: skip
    assert len(chosen) == explaining.METHODS
    assert "colora-block5" in explaining.shown(params, runs(colora_block5=0.6))
    assert explaining.shown(params, {"vim": runs()["vim"], "full": runs()["full"]}) == ["full", "vim"]
    # A better one on another backbone than CoLoRA's differs in more than its method.
    better = {"metrics": {"val": {"acc": 0.9}}, "settings": {"family": "full", "backbone": "resnet50"}}
    other = {**runs(), "full-resnet50": [better]}
    params = params.model_copy(update={"method": {**params.method, "full-resnet50": {}}})
    assert "full" in explaining.shown(params, other) and "full-resnet50" not in explaining.shown(params, other)
    del other["full"]
    assert "full-resnet50" in explaining.shown(params, other)


def test_the_file(workdir):
    params = write()
    found = written(params)
    assert found["methods"].tolist()[:2] == ["full", "head-only"] and len(found["methods"]) == 3
    assert found["seed"] == 1 and found["pool"] == 40 and found["classes"].tolist() == fake.CLASSES
    indices, count = found["indices"], len(found["indices"])
    assert found["shows"].tolist() == ["agreement"] * 3 + ["disagreement"] * (count - 3)
    images, labels = (np.load(params.data_dir / f"{name}.npy") for name in ("images", "labels"))
    assert np.array_equal(found["images"], images[indices]) and np.array_equal(found["labels"], labels[indices])
    for number, method in enumerate(found["methods"]):
        with np.load(params.run_dir(method, 1) / "predictions.npz") as test:
            place = np.searchsorted(test["indices"], indices)
            assert np.array_equal(found["predicted"][number], test["probabilities"][place].argmax(1))
            assert np.allclose(found["probability"][number], test["probabilities"][place].max(1))
        with np.load(params.run_dir(method, 1) / "gradcam.npz") as probe:
            assert np.array_equal(found[f"maps{number}"], probe["maps"][np.searchsorted(probe["indices"], indices)])
    content = explaining.explain(params).read_bytes()
    assert explaining.explain(params).read_bytes() == content, "the same choice every time"


def test_a_subset_of_the_test_in_any_order(workdir):
    """The maps are of fewer images than the test has, and a test's order need not be that of its indices."""
    params = write()
    for method in METHODS:
        path = params.run_dir(method, 1) / "gradcam.npz"
        with np.load(path) as probe:
            content = {name: probe[name][[31, 7, 30, 2, 19, 11]] for name in ("indices", "maps")}
        np.savez(path, **content)
    found = written(params)
    assert found["pool"] == 6 and set(found["indices"].tolist()) <= {31, 7, 30, 2, 19, 11}
    labels = np.load(params.data_dir / "labels.npy")
    assert np.array_equal(found["labels"], labels[found["indices"]])
    with np.load(params.run_dir(found["methods"][1], 1) / "gradcam.npz") as probe:
        of_image = dict(zip(probe["indices"].tolist(), probe["maps"]))
    assert np.array_equal(found["maps1"], [of_image[index] for index in found["indices"].tolist()])


def test_without_probe_there_is_nothing_in_the_archive_and_what_was_there_goes(workdir, capsys):
    params = write(probe=False)
    (workdir / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    (params.results_dir / "explain.npz").write_text("of an earlier profile")
    assert explaining.main([]) == 0
    assert "'fake' has no `probe` section: nothing to explain" in capsys.readouterr().out
    with np.load(params.results_dir / "explain.npz") as archive:
        assert archive.files == []
    summarise(params)
    results = load(params.results_dir)
    assert gradcam.gradcam(results) is None and gradcam.caption(results) == ""


def test_missing_data_are_named_with_the_next_step(workdir, capsys):
    params = write()
    (workdir / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    (params.data_dir / "images.npy").unlink()
    assert explaining.main([]) == 1
    error = capsys.readouterr().err
    assert "data/fake/images.npy: no such file; run `python -m pipelines.prepare` first" in error


def test_other_data_than_the_runs_were_tested_on(workdir):
    params = write()
    labels = np.load(params.data_dir / "labels.npy")
    np.save(params.data_dir / "labels.npy", (labels + 1) % 4)
    with pytest.raises(SummaryError, match="data/fake: its labels of images .* are not those"):
        explaining.explain(params)
    np.save(params.data_dir / "labels.npy", labels[:3])
    with pytest.raises(SummaryError, match="data/fake: images are uint8"):
        explaining.explain(params)
    (params.data_dir / "labels.npy").write_text("no")
    with pytest.raises(SummaryError, match="data/fake: .* not readable"):
        explaining.explain(params)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"indices": np.arange(40)}, "not readable as an archive of indices, maps"),
        ({"indices": np.arange(40), "maps": np.zeros((40, 4, 4))}, r"maps should be uint8 \(n, h, w\), found float64"),
        ({"indices": np.arange(40), "maps": np.zeros((40, 4), np.uint8)}, "maps should be uint8"),
        ({"indices": np.arange(40), "maps": np.zeros((39, 4, 4), np.uint8)}, "maps should be uint8"),
        ({"indices": np.arange(9, 49), "maps": np.zeros((40, 4, 4), np.uint8)}, "not test images"),
        ({"indices": np.arange(39), "maps": np.zeros((39, 4, 4), np.uint8)}, "images of seed 1 differ from those in"),
    ],
)
def test_a_damaged_archive_of_maps_is_named(workdir, content, message):
    params = write()
    np.savez(params.run_dir("head-only", 1) / "gradcam.npz", **content)
    with pytest.raises(SummaryError, match=message) as caught:
        explaining.explain(params)
    assert "head-only/1/gradcam.npz" in str(caught.value) and "--method head-only --seed 1" in str(caught.value)


def test_missing_maps_are_an_error_or_leave_the_method_out(workdir):
    params = write()
    (params.run_dir("head-only", 1) / "gradcam.npz").unlink()
    with pytest.raises(SummaryError, match="head-only/1/gradcam.npz: no such file"):
        explaining.explain(params)
    allowing = params.model_copy(update={"allow_missing": True})
    assert "head-only" not in written(allowing)["methods"]
    for method in METHODS:
        (params.run_dir(method, 1) / "gradcam.npz").unlink(missing_ok=True)
    with pytest.raises(SummaryError, match="no method has a run of seed 1 with a gradcam.npz"):
        explaining.explain(allowing)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("explain"))
        params = write()
        explaining.explain(params)
        summarise(params)
        yield load(params.results_dir.resolve())


def test_the_figure(results):
    with plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **style.RC}):
        figure = gradcam.gradcam(results)
        figure.canvas.draw()
    found = gradcam.read(results)
    m, a = len(found["indices"]), len(found["methods"])
    panels = figure.axes[:-1]  # the last is the scale of the heat
    assert len(panels) == m * (a + 1)
    methods = [method for method in results.methods.index if method in found["methods"]]
    assert [axis.get_title().replace("\n", "") for axis in panels[: a + 1]] == ["scan", *methods]
    wrong = 0
    for row in range(m):
        scan, *maps = panels[row * (a + 1) : (row + 1) * (a + 1)]
        assert scan.texts[0].get_text() == fake.CLASSES[found["labels"][row]]
        drawn = scan.images[0].get_array()[..., 0].astype(int)
        assert abs(drawn - found["images"][row]).max() <= gradcam.STEP / 2
        for axis, method in zip(maps, methods):
            place = found["methods"].tolist().index(method)
            named, how_sure = found["predicted"][place, row], found["probability"][place, row]
            text, frame = axis.texts[0], axis.spines["left"]
            assert text.get_text()[1:] == f" {fake.CLASSES[named]} {how_sure:.2f}"
            is_wrong = named != found["labels"][row]
            wrong += is_wrong
            assert (text.get_text()[0], text.get_weight()) == (("✗", "bold") if is_wrong else ("✓", "normal"))
            assert (frame.get_linestyle() not in ("-", "solid")) == is_wrong == (frame.get_linewidth() > 1)
            box, panel = text.get_window_extent(), axis.get_window_extent()
            assert box.width < panel.width * 1.02
            hottest = np.abs(axis.images[0].get_array().astype(int) - scan.images[0].get_array()).sum(2)
            at = np.unravel_index(hottest.argmax(), hottest.shape)
            assert found["maps"][place][row][at[0] // 8, at[1] // 8] > 100
    assert 0 < wrong < m * a
    whole = figure.bbox
    for text in figure.findobj(plt.Text):
        if text.get_text() and text.get_visible():
            assert all(whole.contains(*corner) for corner in text.get_window_extent().get_points()), text.get_text()
    plt.close(figure)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 4), (7, 5), (40, 3)])
def test_the_enlargement_is_bilinear(shape):
    torch = pytest.importorskip("torch")
    small = np.random.default_rng(0).random(shape)
    large = torch.nn.functional.interpolate(torch.from_numpy(small)[None, None], (32, 24), mode="bilinear")[0, 0]
    np.testing.assert_allclose(gradcam.enlarged(small, (32, 24)), large.numpy(), atol=1e-12)


def test_no_heat_leaves_the_scan_and_colour_becomes_grey():
    scan = np.linspace(0, 1, 256).reshape(16, 16)
    plain = gradcam.overlaid(scan, np.zeros((2, 2))).astype(int)
    assert abs(plain - 255 * scan[..., None]).max() <= gradcam.STEP / 2 + 1e-9
    hot = gradcam.overlaid(scan, np.ones((2, 2))).astype(int)
    assert (np.ptp(hot, axis=2) > 60).all()
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = 255
    assert gradcam._grey(image).tolist() == [[pytest.approx(1), 0], [0, 0]]


def test_the_caption_says_how_coarse_maps_are_and_how_it_was_chosen(results):
    text = page.caption(results, "gradcam")
    assert "4 x 4 positions on 32 x 32 px" in text and "best validation accuracy" in text
    assert "images that all of these methods name rightly" in text


def test_the_report_holds_the_figure_and_drops_a_stale_one(results, tmp_path):
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("accuracy", "critical_difference", "learning_curves", "stability", "parameters", "flops", "cost",
                     "confusion", "reliability", "robustness", "beside_paper"):  # fmt: skip
            stub = lambda _: None  # noqa: E731
            stub.__name__ = name
            monkeypatch.setattr(figures, name, stub, raising=False)
        assert "gradcam" in figures.draw_all(results, tmp_path)
        files = [tmp_path / f"gradcam.{suffix}" for suffix in ("png", "svg", "pdf")]
        assert all(path.stat().st_size > 5000 for path in files)
        assert "gradcam" not in figures.draw_all(replace(results, directory=tmp_path), tmp_path)
        assert not any(path.exists() for path in files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps1": None}, "maps1"),
        ({"labels": None}, "labels"),
        ({"labels": np.full(6, 9)}, "do not fit"),
        ({"probability": np.ones((9, 6))}, "probability"),
        ({"images": np.zeros((1, 32, 32), np.uint8)}, "do not fit"),
        ({"methods": np.array(["full", "head-only", "gone"])}, "shows gone, which the results do not have"),
    ],
)
def test_a_file_of_another_make_is_named(results, tmp_path, change, message):
    with np.load(results.directory / "explain.npz") as archive:
        content = {**archive, **change}
    np.savez(tmp_path / "explain.npz", **{name: value for name, value in content.items() if value is not None})
    with pytest.raises(ReportError, match=f"explain.npz: .*{message}.*pipelines.explain` again"):
        gradcam.read(replace(results, directory=tmp_path))

"""The choice of images and methods for Grad-CAM and of hard scans, and the files that hold them."""

import numpy as np
import pytest
import yaml

from pipelines import explain as command
from pipelines.data import prepared
from pipelines.evidence import declared, explaining, schemas
from pipelines.evidence.summary import summarise
from pipelines.files.errors import UserError
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
    explaining.explain(params)
    with np.load(params.results_dir / "explain.npz", allow_pickle=False) as archive:
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


def test_the_declared_methods_are_shown_or_else_the_first():
    every = [*fake.METHODS, *fake.MORE]
    params = fake.params(every, probe={})
    chosen = declared.present(params, every)
    assert chosen == [
        "full",
        "head-only",
        "bitfit",
        "adapters",
        "conv-lora-r8",
        "colora-blocks2-5",
        "vit-full",
        "medmamba",
    ]
    # Without the declared method a profile is about something else, and shows its own.
    assert declared.present(params, ["vim", "full"]) == ["full", "vim"]
    assert declared.present(params, ["vim", "vit-head", "colora-block5"]) == ["colora-block5", "vit-head", "vim"]


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
    path = params.results_dir / "explain.npz"
    content = path.read_bytes()
    explaining.explain(params)
    assert path.read_bytes() == content, "the same choice every time"


def test_hard_scans_are_kept_with_their_pixels(workdir):
    params = write(n_test=200, probe=False)
    explaining.explain(params)
    summarise(params)
    listed = schemas.read(params.results_dir, "hard_scans")
    with np.load(params.results_dir / "hard_scans.npz") as archive:
        assert archive["image"].tolist() == listed.image.tolist() and len(listed) > 0
        images, labels = prepared.open_images(params.data_dir)
        assert np.array_equal(archive["pixels"], images[listed.image])
    assert listed.label.tolist() == [fake.CLASSES[label] for label in labels[listed.image]]


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
    assert command.main([]) == 0
    assert "explain.npz: nothing, the profile has no section `probe`" in capsys.readouterr().out
    with np.load(params.results_dir / "explain.npz") as archive:
        assert archive.files == []


def test_missing_data_are_named_with_the_next_step(workdir, capsys):
    params = write()
    (workdir / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    (params.data_dir / "images.npy").unlink()
    assert command.main([]) == 1
    error = capsys.readouterr().err
    assert "data/fake: images.npy or labels.npy is not readable" in error and "pipelines.prepare`" in error


def test_other_data_than_the_runs_were_tested_on(workdir):
    params = write()
    labels = np.load(params.data_dir / "labels.npy")
    np.save(params.data_dir / "labels.npy", (labels + 1) % 4)
    with pytest.raises(UserError, match="data/fake: its labels of images .* are not those"):
        explaining.explain(params)
    np.save(params.data_dir / "labels.npy", labels[:3])
    with pytest.raises(UserError, match="data/fake: images are uint8"):
        explaining.explain(params)
    (params.data_dir / "labels.npy").write_text("no")
    with pytest.raises(UserError, match="data/fake: .* not readable"):
        explaining.explain(params)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"indices": np.arange(40)}, "not readable as an archive of indices, maps"),
        (
            {"indices": np.arange(40), "maps": np.zeros((40, 4, 4))},
            r"maps should be unsigned .* \(n, h, w\), found float64",
        ),
        ({"indices": np.arange(40), "maps": np.zeros((40, 4), np.uint8)}, "maps should be unsigned integers"),
        ({"indices": np.arange(40), "maps": np.zeros((39, 4, 4), np.uint8)}, "maps should be unsigned integers"),
        ({"indices": np.arange(9, 49), "maps": np.zeros((40, 4, 4), np.uint8)}, "not test images"),
        ({"indices": np.arange(39), "maps": np.zeros((39, 4, 4), np.uint8)}, "images of seed 1 differ from those in"),
    ],
)
def test_a_damaged_archive_of_maps_is_named(workdir, content, message):
    params = write()
    np.savez(params.run_dir("head-only", 1) / "gradcam.npz", **content)
    with pytest.raises(UserError, match=message) as caught:
        explaining.explain(params)
    assert "head-only/1/gradcam.npz" in str(caught.value) and "--method head-only --seed 1" in str(caught.value)


def test_missing_maps_are_an_error_or_leave_the_method_out(workdir):
    params = write()
    (params.run_dir("head-only", 1) / "gradcam.npz").unlink()
    with pytest.raises(UserError, match="head-only/1/gradcam.npz: no such file"):
        explaining.explain(params)
    allowing = params.model_copy(update={"allow_missing": True})
    assert "head-only" not in written(allowing)["methods"]
    for method in METHODS:
        (params.run_dir(method, 1) / "gradcam.npz").unlink(missing_ok=True)
    with pytest.raises(UserError, match="no probed run has a gradcam.npz"):
        explaining.explain(allowing)


def test_hard_scans_are_those_of_the_methods_that_were_run(workdir):
    """A profile without the declared method shows its first nine: not those without a run."""
    methods = [f"full-{number}" for number in range(12)]
    params = fake.params(["full"]).model_copy(update={"allow_missing": True})
    params = type(params)(**{**params.model_dump(), "method": {name: {"family": "full"} for name in methods}})
    for method in methods[8:]:
        for seed in params.seeds:
            fake.write_run(params, method, seed, n_test=40, like={method: "head-only"})
    with np.load(params.run_dir(methods[-1], 1) / "predictions.npz") as test:
        labels = test["labels"]
    places = {split: np.arange(40) for split in ("train", "val", "test")}
    write_prepared(params.data_dir, np.zeros((40, 32, 32), np.uint8), labels, places)
    summarise(params)
    explaining.explain(params)
    with np.load(params.results_dir / "hard_scans.npz") as archive:
        assert archive["image"].tolist() == schemas.read(params.results_dir, "hard_scans").image.tolist() != []

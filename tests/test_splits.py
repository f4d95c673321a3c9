"""Splits: patients stay together, folds cover everything, and the paper's subsets are what it says."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.data import splits
from pipelines.data.sources import DataError
from pipelines.profile.data import Balanced, Distilled

CLASSES = ["A", "B", "C"]


def cohort(patients=60, seed=0):
    """Labels and patients, images per patient uneven, a few patients under two classes."""
    rng = np.random.default_rng(seed)
    labels, ids = [], []
    for patient in range(patients):
        for _ in range(rng.integers(1, 5)):
            labels.append(patient % 3 if rng.random() < 0.9 else (patient + 1) % 3)
            ids.append(f"p{patient}")
    return np.array(labels, np.int64), np.array(ids)


def test_patients_never_cross_and_every_image_is_used_once_a_seed():
    labels, patients = cohort()
    made = splits.patient_folds(labels, patients, range(7), 5, 0.2, CLASSES)
    assert list(made) == [f"{seed}/{part}" for seed in range(7) for part in ("train", "val", "test")]
    for seed in range(7):
        parts = [made[f"{seed}/{part}"] for part in ("train", "val", "test")]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
        owners = [set(patients[part]) for part in parts]
        assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
        assert all((np.diff(part) > 0).all() and part.dtype == np.int64 for part in parts)


@pytest.mark.parametrize("named", [True, False], ids=["patients", "images"])
def test_the_folds_of_each_repeat_test_every_image_once_and_repeats_are_other_shufflings(named):
    labels, patients = cohort()
    owners = patients if named else np.arange(len(labels))
    made = splits.patient_folds(labels, patients if named else None, range(15), 5, 0.2, CLASSES)
    together = []  # of each repeat: which owners are tested together
    for repeat in range(3):
        folds = [made[f"{5 * repeat + fold}/test"] for fold in range(5)]
        assert sorted(np.concatenate(folds).tolist()) == list(range(len(labels)))
        groups = [frozenset(owners[fold].tolist()) for fold in folds]
        assert sum(map(len, groups)) == len(set(owners.tolist()))
        together.append(frozenset(groups))
    assert not (together[0] & together[1] or together[0] & together[2] or together[1] & together[2])


def test_splits_are_stratified_and_near_their_sizes():
    labels, patients = cohort(patients=300)
    made = splits.patient_folds(labels, patients, [3], 5, 0.125, CLASSES)
    overall = np.bincount(labels) / len(labels)
    for part, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        indices = made[f"3/{part}"]
        assert abs(len(indices) / len(labels) - share) < 0.02
        assert np.abs(np.bincount(labels[indices]) / len(indices) - overall).max() < 0.03


def test_a_seed_gets_the_same_splits_whatever_other_seeds_there_are():
    labels, patients = cohort()
    alone = splits.patient_folds(labels, patients, [4], 5, 0.2, CLASSES)
    among = splits.patient_folds(labels, patients, [0, 4, 9], 5, 0.2, CLASSES)
    for name, indices in alone.items():
        np.testing.assert_array_equal(among[name], indices)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"val_share": 0.001},
            r"seed 0: class '.' has \d+ patients outside the test fold, .*data\.folder\.val_share = 0\.001, "
            r"one part of 1000; raise it to 0\.0\d+ or add patients",
        ),
        ({"folds": 40}, r"class '.' has \d+ patients, fewer than data\.folder\.folds = 40"),
    ],
)
def test_impossible_folds_are_explained(changes, message):
    labels, patients = cohort()
    settings = {"seeds": [0], "folds": 5, "val_share": 0.2, **changes}
    with pytest.raises(DataError, match=message):
        splits.patient_folds(labels, patients, **settings, classes=CLASSES)


def test_the_share_that_a_class_of_few_patients_is_told_to_ask_for_is_enough():
    """Six patients of C with twelve images each: four are left outside the test fold, and one of ten parts is none."""
    rng = np.random.default_rng(0)
    patients = np.concatenate(
        [np.repeat([f"{name}{n}" for n in range(count)], 12) for name, count in (("A", 40), ("C", 6))]
    )
    patients = patients[rng.permutation(len(patients))]
    labels = np.array([int(name.startswith("C")) for name in patients])
    settings = {"seeds": range(6), "folds": 3, "classes": ["A", "C"], "key": "data.manifest"}
    with pytest.raises(DataError) as told:
        splits.patient_folds(labels, patients, val_share=0.1, **settings)
    found = re.fullmatch(
        r"seed \d: class 'C' has 4 patients outside the test fold, too few for training and validation by "
        r"data\.manifest\.val_share = 0\.1, one part of 10; raise it to (0\.25) or add patients", str(told.value)
    )  # fmt: skip
    assert found
    made = splits.patient_folds(labels, patients, val_share=float(found[1]), **settings)
    assert all(set(labels[indices]) == {0, 1} for indices in made.values())


def test_a_split_that_lacks_a_class_is_named():
    with pytest.raises(DataError, match="split 'val' has no image of class B, C"):
        splits.check(np.array([0, 1, 2, 0]), {"train": np.arange(3), "val": np.array([3])}, CLASSES)


def fixed():
    """12 images in train, classes in turn, then 3 in val and 3 in test."""
    labels = np.arange(18) % 3
    return labels, {"train": np.arange(12), "val": np.arange(12, 15), "test": np.arange(15, 18)}


def balanced(per_class=3, **more):
    return SimpleNamespace(mode="balanced", balanced=Balanced(per_class=per_class), **more)


def distilled(path, keep=(1, 3)):
    return SimpleNamespace(
        mode="distilled", balanced=Balanced(per_class=3), distilled=Distilled(entropies=path, keep=keep)
    )


def test_balanced_keeps_the_first_of_each_class_in_stored_order():
    labels = np.array([0, 0, 1, 0, 2, 0, 1, 2, 1, 2])
    chosen = splits.select(balanced(2), labels, {"train": np.arange(10), "val": np.array([9])}, CLASSES)
    assert chosen["train"].tolist() == [0, 1, 2, 4, 6, 7]
    assert chosen["val"].tolist() == [9]


def test_balanced_works_on_the_training_part_of_every_seed():
    labels, patients = cohort()
    made = splits.patient_folds(labels, patients, [0, 1], 5, 0.2, CLASSES)
    chosen = splits.select(balanced(5), labels, made, CLASSES)
    for seed in (0, 1):
        assert np.bincount(labels[chosen[f"{seed}/train"]]).tolist() == [5, 5, 5]
        assert set(chosen[f"{seed}/train"]) <= set(made[f"{seed}/train"])
        np.testing.assert_array_equal(chosen[f"{seed}/test"], made[f"{seed}/test"])


def test_balanced_with_too_few_images_names_the_class():
    labels, made = fixed()
    with pytest.raises(DataError, match=r"data\.balanced\.per_class: 5 asked .* has 4 images of class 'A'"):
        splits.select(balanced(5), labels, made, CLASSES)


def test_full_changes_nothing():
    labels, made = fixed()
    assert splits.select(SimpleNamespace(mode="full"), labels, made, CLASSES) is made


def test_distilled_keeps_the_asked_ranks_of_each_class_with_ties_in_stored_order(tmp_path):
    labels, made = fixed()
    # Balanced keeps images 0..8: class A is 0, 3, 6; B is 1, 4, 7; C is 2, 5, 8.
    entropy = np.array([0.9, 0.5, 0.1, 0.2, 0.5, 0.3, 0.4, 0.5, 0.2])
    order = np.random.default_rng(0).permutation(9)  # a run may store them in any order
    np.savez(tmp_path / "entropies.npz", indices=order, entropy=entropy[order])
    chosen = splits.select(distilled(tmp_path / "entropies.npz"), labels, made, CLASSES)
    # Ascending: A 3, 6, 0 -> 6, 0; B ties 1, 4, 7 -> 4, 7; C 2, 8, 5 -> 8, 5.
    assert chosen["train"].tolist() == [0, 4, 5, 6, 7, 8]
    assert chosen["test"].tolist() == made["test"].tolist()


def test_the_papers_ranks_give_the_papers_counts(tmp_path):
    """7,754 a class balanced, ranks 690..7,729 kept: 7,040 a class, 28,160 in all."""
    labels = np.arange(4 * 7800) % 4
    data = SimpleNamespace(
        mode="distilled", balanced=Balanced(), distilled=Distilled(entropies=tmp_path / "entropies.npz")
    )
    indices = np.arange(4 * 7754)
    np.savez(data.distilled.entropies, indices=indices, entropy=np.random.default_rng(0).random(len(indices)))
    chosen = splits.select(data, labels, {"train": np.arange(len(labels))}, list("ABCD"))
    assert len(chosen["train"]) == 28160
    assert np.bincount(labels[chosen["train"]]).tolist() == [7040] * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"indices": np.arange(8), "entropy": np.zeros(8)},
            r"covers 8 images, expected exactly the 9 .*save_entropies",
        ),
        ({"indices": np.arange(1, 10), "entropy": np.zeros(9)}, r"covers 9 images.*\(8 in common\)"),
        ({"indices": np.arange(9)}, r"lacks entropy, found \['indices'\]"),
        ({"indices": np.arange(9), "entropy": np.zeros(7)}, r"entropy should be numbers \(n\), found"),
        ({"indices": np.arange(9), "entropy": np.full(9, np.nan)}, "9 entropies are not finite"),
        ({"indices": np.r_[0, 0:8], "entropy": np.zeros(9)}, r"covers 9 images.*\(8 in common\)"),
        ({"indices": np.arange(9), "entropy": np.array([None] * 9)}, "not a readable npz file"),
    ],
)
def test_unfit_entropies_name_the_file(tmp_path, content, message):
    path = tmp_path / "entropies.npz"
    np.savez(path, **content)
    with pytest.raises(DataError, match=f"entropies.npz: .*{message}"):
        splits.select(distilled(path), *fixed(), CLASSES)


def test_missing_or_broken_entropies_say_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match=r"absent.npz: no such file; train the run .*save_entropies: true"):
        splits.entropies_digest(tmp_path / "absent.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="cut.npz: not a readable npz"):
        splits.select(distilled(tmp_path / "cut.npz"), *fixed(), CLASSES)


@pytest.mark.parametrize("keep", [(2, 2), (-1, 2), (0, 4)])
def test_ranks_outside_the_class_are_refused(tmp_path, keep):
    with pytest.raises(DataError, match=r"data\.distilled\.keep: .*<= 3 \(per_class\)"):
        splits.select(distilled(tmp_path / "entropies.npz", keep), *fixed(), CLASSES)


def test_distilled_with_folds_is_refused(tmp_path):
    labels, patients = cohort()
    made = splits.patient_folds(labels, patients, [0], 5, 0.2, CLASSES)
    with pytest.raises(DataError, match=r"data\.mode: 'distilled' needs fixed splits"):
        splits.select(distilled(tmp_path / "entropies.npz"), labels, made, CLASSES)


def shares_of(shares=(0.1, 0.25, 0.5), seeds=(0, 3), patients=300, **changes):
    """Labels, patients, and the folds of a cohort with shares of their training parts."""
    labels, ids = cohort(patients)
    made = splits.patient_folds(labels, ids, seeds, 5, 0.125, CLASSES)
    owners = changes.get("owners", ids)
    return labels, ids, splits.with_shares(shares, labels, owners, made, CLASSES)


def test_shares_are_nested_hold_whole_patients_and_leave_the_other_splits_alone():
    labels, ids, made = shares_of()
    parts = ["train", "train@0.1", "train@0.25", "train@0.5", "val", "test"]
    assert list(made) == [f"{seed}/{part}" for seed in (0, 3) for part in parts]
    folds = splits.patient_folds(labels, ids, (0, 3), 5, 0.125, CLASSES)
    for name, indices in folds.items():
        np.testing.assert_array_equal(made[name], indices)
    for seed in (0, 3):
        train = made[f"{seed}/train"]
        for smaller, larger in zip(parts[1:4], [*parts[2:4], "train"]):
            inside, outside = made[f"{seed}/{smaller}"], np.setdiff1d(train, made[f"{seed}/{smaller}"])
            assert set(inside) < set(made[f"{seed}/{larger}"])
            assert not set(ids[inside]) & set(ids[outside])
            assert (np.diff(inside) > 0).all() and inside.dtype == np.int64


def test_a_share_has_that_part_of_each_classs_patients():
    labels, ids, made = shares_of()
    train = made["0/train"]
    # The class of a patient as `cohort` makes them, save for the few of whom most images are of the other class.
    main = {patient: np.bincount(labels[train][ids[train] == patient]).argmax() for patient in set(ids[train])}
    for share in (0.1, 0.25, 0.5):
        chosen = set(ids[made[f"0/train@{share}"]])
        for label in range(3):
            of_class = [patient for patient in main if main[patient] == label]
            assert abs(len(chosen.intersection(of_class)) - share * len(of_class)) <= 0.5
        assert abs(len(chosen) - share * len(main)) <= 1.5
        counts = np.bincount(labels[made[f"0/train@{share}"]]) / len(made[f"0/train@{share}"])
        assert np.abs(counts - np.bincount(labels[train]) / len(train)).max() < 0.1


def test_a_share_is_the_same_whatever_else_is_asked_for_and_another_one_under_another_seed():
    together, alone = shares_of()[2], shares_of((0.25,), seeds=(3,))[2]
    np.testing.assert_array_equal(together["3/train@0.25"], alone["3/train@0.25"])
    everyone = {"train": np.arange(60)}
    labels, ids = np.arange(60) % 3, np.array([f"p{image}" for image in range(60)])
    drawn = [
        splits.with_shares([0.5], labels, ids, {f"{seed}/train": everyone["train"]}, CLASSES)[f"{seed}/train@0.5"]
        for seed in (0, 1)
    ]
    assert drawn[0].tolist() != drawn[1].tolist()


def test_shares_of_images_where_no_patient_is_named():
    labels = np.arange(240) % 3
    fixed_splits = {"train": np.arange(150), "val": np.arange(150, 180), "test": np.arange(180, 240)}
    made = splits.with_shares([0.1, 0.02], labels, None, fixed_splits, CLASSES)
    assert np.bincount(labels[made["train@0.1"]]).tolist() == [5, 5, 5]
    assert np.bincount(labels[made["train@0.02"]]).tolist() == [1, 1, 1]
    assert set(made["train@0.02"]) < set(made["train@0.1"]) < set(range(150))
    # Drawn, not the first ones: stored order may mean something.
    assert made["train@0.1"].max() > 45


def test_a_share_without_a_class_is_named():
    labels, owners = np.array([0] * 50 + [1] * 4 + [2] * 50), np.array([f"p{i}" for i in range(104)])
    message = r"data\.shares: 0\.1 of the training patients of seed 7 holds none of class B; ask for a larger share"
    with pytest.raises(DataError, match=message):
        splits.with_shares([0.1], labels, owners, {"7/train": np.arange(104)}, CLASSES)
    with pytest.raises(DataError, match=r"0\.1 of the training images holds none of class B"):
        splits.with_shares([0.1], labels, None, {"train": np.arange(104)}, CLASSES)
    assert len(splits.with_shares([0.2], labels, owners, {"7/train": np.arange(104)}, CLASSES)["7/train@0.2"]) == 21

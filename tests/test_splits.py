"""Published split files, and the seeded choice."""

import numpy as np
import pytest

from minmax_jax.data import splits as splits_lib
from tests import splits

EVERYTHING = splits.make_split([(32, 32)] * 6)  # classes a b a b a b


def _write(folder, **files):
    for name, rows in files.items():
        path = folder / "split_0" / "fold_0" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n")
    return folder


GOOD = dict(
    train_s_0_f_0=["image_2.bmp,image_2_anno.bmp,a", "folder/image_1.bmp,image_1_anno.bmp,b"],
    valid_s_0_f_0=["image_4.bmp,image_4_anno.bmp,a"],
    test_s_0_f_0=["image_0.png,,a", "image_3.bmp,image_3_anno.bmp,b"],
)


def test_published_files(tmp_path):
    parts = splits_lib.read_folds(_write(tmp_path, **GOOD), EVERYTHING)
    assert {name: part.names for name, part in parts.items()} == {
        "train": ("image_2", "image_1"),
        "validation": ("image_4",),
        "test": ("image_0", "image_3"),
    }
    np.testing.assert_array_equal(parts["train"].labels, [0, 1])


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(train_s_0_f_0=["image_9.bmp,x,a"]), "line 1: image 'image_9' is not in the prepared dataset"),
        (
            dict(train_s_0_f_0=["image_1.bmp,x,a"]),
            "line 1: image 'image_1' has class 'a', not 'b'",
        ),
        (
            dict(valid_s_0_f_0=["image_2.bmp,x,a"]),
            "image 'image_2' is already in .*train_s_0_f_0.csv, line 1",
        ),
        (dict(valid_s_0_f_0=[""]), "has no rows: the validation split would be empty"),
        (dict(valid_s_0_f_0=["image_4.bmp,a"]), "is not `image,mask,class`"),
        (dict(train_other=["image_5.bmp,x,b"]), "must hold exactly one train"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        splits_lib.read_folds(_write(tmp_path, **(GOOD | change)), EVERYTHING)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"must hold exactly one train\*.csv, found: none"):
        splits_lib.read_folds(tmp_path / "nowhere", EVERYTHING)


def test_the_seeded_choice_takes_a_fifth_of_each_class():
    labels = np.array([0] * 37 + [1] * 48)  # GlaS: 8 and 10 of them, as published
    train, validation = splits_lib.choose_validation(labels, share=0.2, seed=0)
    assert (len(train), len(validation)) == (67, 18)
    np.testing.assert_array_equal(np.bincount(labels[validation]), [8, 10])
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(85))
    np.testing.assert_array_equal(validation, splits_lib.choose_validation(labels, share=0.2, seed=0)[1])
    assert not np.array_equal(validation, splits_lib.choose_validation(labels, share=0.2, seed=1)[1])


def test_a_class_without_training_images_is_refused():
    with pytest.raises(ValueError, match="Class 1 has 1 training images: none is left"):
        splits_lib.choose_validation(np.array([0, 0, 0, 1]), share=0.5, seed=0)


# Images of each patient by class.
_PATIENTS = {"a": (6, 0), "b": (0, 6), "c": (3, 3), "d": (3, 3), "e": (2, 0), "f": (0, 2), "g": (6, 6)}


def _examples(patients):
    rows = [(label, name) for name, counts in patients.items() for label in (0, 1) for _ in range(counts[label])]
    labels, names = zip(*rows)
    return np.array(labels), names


def test_no_patient_is_in_two_splits_and_each_split_has_both_classes():
    labels, patients = _examples(_PATIENTS)
    chosen = splits_lib.choose_patients(labels, patients, validation_share=0.2, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(chosen.values()))), np.arange(len(labels)))
    of_split = [{patients[index] for index in chosen[name]} for name in ("train", "validation", "test")]
    assert sum(map(len, of_split)) == len(_PATIENTS)
    for indices in chosen.values():
        assert set(labels[indices]) == {0, 1}
    assert abs(len(chosen["test"]) - 20) <= 2 and len(chosen["validation"]) < len(chosen["train"])
    again = splits_lib.choose_patients(labels, patients, validation_share=0.2, seed=0)
    np.testing.assert_array_equal(chosen["test"], again["test"])


def test_the_seed_chooses_the_patients():
    labels, patients = _examples(_PATIENTS)
    tests = [
        tuple(splits_lib.choose_patients(labels, patients, validation_share=0.2, seed=seed)["test"])
        for seed in range(6)
    ]
    assert len(set(tests)) > 1


def test_the_one_even_division_of_patients_is_found():
    """By hand: half of 8 + 8 images, then a quarter of the rest, and patients are whole."""
    labels, patients = _examples({"a": (4, 4), "b": (3, 3), "c": (1, 1)})
    chosen = splits_lib.choose_patients(labels, patients, validation_share=0.25, seed=5)
    assert {name: {patients[index] for index in chosen[name]} for name in chosen} == {
        "train": {"b"},
        "validation": {"c"},
        "test": {"a"},
    }


def test_too_few_patients_are_refused():
    labels, patients = _examples({"a": (4, 4), "b": (4, 4)})
    with pytest.raises(ValueError, match="The 2 patients cannot be divided"):
        splits_lib.choose_patients(labels, patients, validation_share=0.2, seed=0)

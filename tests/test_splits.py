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

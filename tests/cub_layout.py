"""CUB-200-2011 in its official layout, with small made-up images."""

import pathlib

import numpy as np

from tests import encoded

SIZE = (34, 40)


def votes_of(number: int) -> np.ndarray:
    """Grey values of 0 to 5 votes in six columns, the first wider for each number."""
    return np.broadcast_to(np.clip(np.arange(SIZE[1]) - number % 32, 0, 5) * 51, SIZE).astype(np.uint8)


def box_of(number: int) -> tuple[float, float, float, float]:
    """x, y, width, height."""
    return 4.0, 5.0, 10.0 + number % 20, 17.0


def write(folder: pathlib.Path, images: list[tuple[str, str, bool]]) -> pathlib.Path:
    """Writes both official parts.

    Args:
        folder: to write to.
        images: class, such as "019.Gray_Catbird", file name without ending, and whether it is of the training split;
            their numbers count from 1 in this order.
    """
    lists = folder / "CUB_200_2011"
    image = encoded.encode(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), "JPEG")
    votes = {number: encoded.encode(votes_of(number)) for number in range(32)}
    for number, (class_name, name, _) in enumerate(images, start=1):
        for path, content in (
            (lists / "images" / class_name / f"{name}.jpg", image),
            (folder / "segmentations" / class_name / f"{name}.png", votes[number % 32]),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    # The official numbers of the classes.
    labels = {name: int(name[:3]) for name in sorted({name for name, *_ in images})}
    _write_lines(lists / "classes.txt", ((label, name) for name, label in labels.items()))
    columns = {
        "images.txt": [f"{class_name}/{name}.jpg" for class_name, name, _ in images],
        "image_class_labels.txt": [labels[class_name] for class_name, *_ in images],
        "train_test_split.txt": [int(is_train) for *_, is_train in images],
        "bounding_boxes.txt": [" ".join(map(str, box_of(number))) for number in range(1, len(images) + 1)],
    }
    for name, values in columns.items():
        _write_lines(lists / name, enumerate(values, start=1))
    return folder


def _write_lines(path, rows):
    path.write_text("".join(f"{number} {value}\n" for number, value in rows))

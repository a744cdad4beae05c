"""What tables of the report hold: classes, flags, and what models that know nothing of the image reach."""

import collections
import re
from typing import Any


def describe_trivial(name: str, results: dict[str, Any]) -> str:
    """What a model that knows nothing of the image reaches in a metric, "" where that is unknown."""
    majority = results.get("majority_class", {})
    if name in majority:
        return f"always “{majority['class']}” {majority[name]:.1f}"
    all_ones = results["metrics"][name].get("baselines", {}).get("all_ones")
    return "" if all_ones is None else f"all ones {all_ones:.1f}"


def read_classes(results: dict[str, Any], curves: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each class, with the class that its images are most often taken for."""
    names, confusion = list(results.get("classes", {})), curves.get("confusion")
    rows = []
    for index, (name, entry) in enumerate(results.get("classes", {}).items()):
        counts = [0 if other == index else count for other, count in enumerate(confusion[index] if confusion else [])]
        maximum = max(counts, default=0)
        taken_for = f"{names[counts.index(maximum)]} ({maximum})" if maximum else ""
        rows.append(entry | {"name": name, "taken_for": taken_for})
    return rows


def count_flags(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many images carry each flag, the most frequent first; None where the rows of the test have none."""
    flags = [row["flags"] for row in rows if "flags" in row]
    if not flags:
        return None
    # Shares differ from image to image.
    counts = collections.Counter(re.sub(r"[\d.]+ %", "… %", flag) for of_image in flags for flag in of_image)
    return {"num_images": len(flags), "num_flagged": sum(map(bool, flags)), "counts": counts.most_common()}

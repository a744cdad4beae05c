"""Progress of long work: a bar on a terminal, a line in the log every ten seconds elsewhere."""

from collections.abc import Callable, Collection, Iterator
import contextlib
import logging
import sys
import time
from typing import TypeVar

import tqdm

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 10


@contextlib.contextmanager
def meter(description: str, *, total: int | None, unit: str, initial: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields an update function, which takes the number of units done since its last call.

    Args:
        description: what is done.
        total: number of units, if it is known.
        unit: name of one; "B" for bytes, which are shown in thousands and millions.
        initial: number of units that were done before.
    """
    is_bytes = unit == "B"
    if sys.stderr.isatty():
        with tqdm.tqdm(desc=description, initial=initial, total=total, unit=unit, unit_scale=is_bytes) as bar:
            yield bar.update
        return
    done, last = initial, time.monotonic()

    def show(count: int | None) -> str:
        return tqdm.tqdm.format_sizeof(count, "B") if is_bytes else f"{count}"

    def update(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            of_total = f" of {show(total)}" if total else ""
            logger.info("%s: %s%s%s.", description, show(done), of_total, "" if is_bytes else f" {unit}s")

    yield update


def track(items: Collection[Item], description: str, *, unit: str = "image") -> Iterator[Item]:
    """Yields the items, and shows how many are done.

    Args:
        items: the items, in order.
        description: what is done.
        unit: name of one item.
    """
    with meter(description, total=len(items), unit=unit) as update:
        for item in items:
            yield item
            update(1)

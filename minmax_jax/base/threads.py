"""Work in threads whose results keep the order of the items."""

import collections
from collections.abc import Callable, Iterable, Iterator
import concurrent.futures
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_threads: int,
    num_ahead: int,
    is_alone: Callable[[Item], bool] = lambda item: False,
) -> Iterator[Result]:
    """Yields `work(item)` of each item, in their order; the next items are taken and worked on meanwhile.

    Args:
        work: called in a thread; what it raises is raised here, in its turn.
        items: taken one by one in the thread of the caller.
        num_threads: that work.
        num_ahead: of items that are taken before the result of an earlier one is asked for; it bounds the memory.
        is_alone: of an item: whether its result is waited for before the next item is taken.

    Example:
        >>> from minmax_jax.base import threads
        >>> list(threads.map_in_order(str.upper, "abc", num_threads=2, num_ahead=2))
        ['A', 'B', 'C']
    """
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(num_threads, thread_name_prefix=work.__name__)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            allowed = 0 if is_alone(item) else num_ahead
            while waiting and (len(waiting) > allowed or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the caller stops: what has begun is finished, what has not is left out
        pool.shutdown(cancel_futures=True)

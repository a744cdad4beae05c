"""Work in threads: order, errors, and what is taken ahead."""

import threading

import pytest

from minmax_jax.base import threads


def test_results_keep_the_order_of_the_items():
    """The first item ends last: it waits until the second one has ended."""
    second = threading.Event()

    def work(item):
        if item == 0:
            assert second.wait(10)
        if item == 1:
            second.set()
        return item, threading.current_thread() is threading.main_thread()

    found = list(threads.map_in_order(work, range(6), num_threads=2, num_ahead=3))
    assert found == [(item, False) for item in range(6)]


@pytest.mark.parametrize("num_ahead", [1, 4])
def test_no_more_items_are_taken_than_allowed(num_ahead):
    taken, given = [], []
    goes_on = threading.Event()

    def items():
        for item in range(12):
            taken.append(item)
            # What waits, and the item that is taken in this moment.
            assert len(taken) - len(given) <= num_ahead + 2
            if item == num_ahead:
                goes_on.set()
            yield item

    def work(item):
        assert goes_on.wait(10)
        return item

    for item in threads.map_in_order(work, items(), num_threads=2, num_ahead=num_ahead):
        given.append(item)
    assert given == taken == list(range(12))


def test_an_item_that_is_alone_is_done_before_the_next_is_taken():
    done, taken = [], []

    def items():
        for item in range(5):
            assert 2 not in taken or 2 in done
            taken.append(item)
            yield item

    options = {"num_threads": 2, "num_ahead": 4, "is_alone": lambda item: item == 2}
    assert list(threads.map_in_order(lambda item: done.append(item) or item, items(), **options)) == list(range(5))


def test_an_error_is_raised_in_its_turn_and_what_has_not_begun_is_left_out():
    begun, failed = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 2:
            failed.set()
            raise OSError("item 2 cannot be written")
        if item > 2:
            failed.wait(10)
        return item

    found = threads.map_in_order(work, range(1000), num_threads=1, num_ahead=5)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(OSError, match="item 2 cannot be written"):
        next(found)
    assert len(begun) < 20

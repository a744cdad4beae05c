"""Arithmetic on sides of images that may be free: known when a program runs, not when it is traced.

Programs for images of any size are traced with symbols of `jax.export` in the place of such sides. Sums, products and
quotients of whole numbers have a form for symbols; numbers with a fraction have none.
"""

from collections.abc import Callable
import fractions
from typing import Any

import jax
from jax import core, lax
import numpy as np

from minmax_jax.base.errors import UserError

# A whole number, or an expression of JAX's that holds free sides.
Size = Any

_MAX_DENOMINATOR = 4000  # so that products with numbers of locations fit into 32 bits
_MAX_LOCATIONS = 2**18  # of a map of features of a 2048x2048 image at stride 4


class FreeSizeError(UserError):
    """A computation that needs to know the size of the images; the message says which and why."""


def is_free(size: Size) -> bool:
    """Whether a side is known when the program runs only."""
    return not isinstance(size, int | np.integer)


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two, of which one may be free."""
    return core.min_dim(a, b) if is_free(a) or is_free(b) else min(a, b)


def maximum(a: Size, b: Size) -> Size:
    """The larger of two, of which one may be free."""
    return core.max_dim(a, b) if is_free(a) or is_free(b) else max(a, b)


def cut_share(size: Size, share: float, *, name: str) -> Size:
    """`int(share * size)`.

    Args:
        size: a side, in pixels.
        share: of it.
        name: of the share, for the message.

    Raises:
        FreeSizeError: of a free side, if the share is no multiple of 1/64: rounding would then differ. `name` is that
            of the share in the message.
    """
    if not is_free(size):
        return int(share * size)
    exact = fractions.Fraction(share)
    if exact.denominator > 64:
        raise FreeSizeError(f"{name}={share:g} of a free side has no exact form; multiples of 1/64 have one.")
    return size * exact.numerator // exact.denominator


def round_share(count: jax.Array, share: float) -> jax.Array:
    """`round(share * count)`, half to even, of a whole number of up to 2**18 that is known when the program runs.

    Raises:
        FreeSizeError: if the product with the nearest fraction rounds otherwise than that with the share for one of
            these numbers.
    """
    exact = fractions.Fraction(share).limit_denominator(_MAX_DENOMINATOR)
    counts = np.arange(_MAX_LOCATIONS + 1)
    if np.any(np.round(share * counts) != _round_half_even(counts, exact, np.floor_divide, np.remainder)):
        raise FreeSizeError(f"a share of {share:g} of a free number of locations has no exact form.")
    return _round_half_even(count, exact, lax.div, lax.rem)


def _round_half_even(count: Any, share: fractions.Fraction, divide: Callable, rest: Callable) -> Any:
    """With whole numbers alone: half a unit more, rounded down; at a half exactly, an odd result is one too many."""
    numerator, denominator = (np.asarray(number, count.dtype) for number in (share.numerator, share.denominator))
    two, doubled = np.asarray(2, count.dtype), 2 * numerator * count + denominator
    rounded = divide(doubled, 2 * denominator)
    is_half = rest(doubled, 2 * denominator) == 0
    return rounded - is_half.astype(count.dtype) * rest(rounded, two)

"""The table of methods. Training, checks, and all that opens a saved model read it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from minmax_jax.baselines import localizer_alone
from minmax_jax.method import Method
from minmax_jax.minmax import method as minmax
from minmax_jax.training.setup import Setup


class Entry(NamedTuple):
    """A method that a run can name.

    Attributes:
        options: frozen dataclass of what the method reads. Its fields are fields or groups of a configuration by name,
            the group "mask" among them; others have defaults.
        create: (options, setup) -> Method.
        accumulates: whether its training step can cut a batch into micro-batches.
        trains_through_masks: whether gradients of its loss flow through the masks with mask.gradient="flow".
    """

    options: type
    create: Callable[[Any, Setup], Method]
    accumulates: bool = False
    trains_through_masks: bool = False


# By the name of `config.method`.
METHODS: dict[str, Entry] = {
    "minmax": Entry(minmax.Objective, minmax.create, accumulates=True, trains_through_masks=True),
    "wildcat": Entry(localizer_alone.LocalizerOptions, localizer_alone.create_wildcat),
    "cam": Entry(localizer_alone.LocalizerOptions, localizer_alone.create_cam),
}

"""What stands behind the colon of `--config=FILE:VARIANT`: changes to a configuration, separated by commas."""

from collections.abc import Callable

import ml_collections

Variant = Callable[[ml_collections.ConfigDict], None]


def apply(config: ml_collections.ConfigDict, variant: str, known: dict[str, Variant]) -> ml_collections.ConfigDict:
    """Applies named changes, and `erasing=R`, which every configuration has.

    Args:
        config: is changed.
        variant: names, separated by commas; "" changes nothing.
        known: the changes that this configuration has by name.

    Returns:
        The configuration.

    Raises:
        ValueError: for an unknown name.
    """
    for name in filter(None, variant.split(",")):
        if name in known:
            known[name](config)
        elif name.startswith("erasing=") and name.removeprefix("erasing=").isdigit():
            config.erasing.num_erasures = int(name.removeprefix("erasing="))
        else:
            names = ", ".join([*known, "erasing=R"])
            raise ValueError(f"The variant {name!r} is unknown; there are: {names}.")
    return config

"""What a user can correct. Every other exception is a defect of the library and keeps its traceback."""

from collections.abc import Iterator
import contextlib


class UserError(Exception):
    """Input that cannot be used: the message names the field, flag or file, its value, and what to do.

    Programs print the message alone and end with status 1.
    """


class OptionError(UserError, ValueError):
    """An argument that cannot be used; the message begins with it, as in "omega=-1 must be above 0.".

    Several arguments that cannot be used have a message each, on lines of their own.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ConfigError(UserError, ValueError):
    """A configuration that cannot be trained; the message names the field, its value and what it must be."""


@contextlib.contextmanager
def naming(prefix: str) -> Iterator[None]:
    """Puts what the user wrote before the name of an argument: "config.mask." or "--".

    Functions name their own arguments; only programs know from which field or flag a value came.
    """
    try:
        yield
    except OptionError as error:
        raise type(error)(*(f"{prefix}{message}" for message in error.args)) from error

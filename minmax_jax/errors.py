"""What a user can correct. Every other exception is a defect of the library and keeps its traceback."""


class UserError(Exception):
    """Input that cannot be used: the message names the field, flag or file, its value, and what to do.

    Programs print the message in one line and end with status 1. Subclasses that a caller of the functional API may
    expect as a `ValueError` or an `OSError` derive from that as well.
    """

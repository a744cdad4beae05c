"""Paths that users write: in flags, in fields and as arguments."""

import pathlib
import re

from minmax_jax.base.errors import OptionError

_COPY = {"gs": "gcloud storage rsync, or mount the bucket by gcsfuse", "s3": "aws s3 sync, or mount it by mount-s3"}


def local_path(name: str, path: str | pathlib.Path) -> pathlib.Path:
    """A path on this machine's file systems, with `~` expanded: shells leave it as it is in --flag=~/folder.

    Args:
        name: of the argument, for the message.
        path: as the user wrote it.

    Raises:
        OptionError: for the address of a bucket or a web page, and where there is no such home directory.
    """
    text = str(path)
    # pathlib makes one slash of two.
    if address := re.match(r"([a-z][a-z0-9+.-]+):/", text):
        how = _COPY.get(address[1], "curl or wget")
        raise OptionError(f"{name}={text!r} is not on a file system of this machine. Copy it by {how}.")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise OptionError(f"{name}={text!r}: {error} Write the whole path.") from error

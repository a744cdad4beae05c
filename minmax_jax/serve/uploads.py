"""The file in the body of a request, as it is or in a form; an upload that stalls is ended and keeps nobody waiting."""

import asyncio
import dataclasses
import email.message

from starlette.requests import Request

from minmax_jax.base.errors import UserError

_SECONDS_WITHOUT_BYTES = 10.0
_SECONDS_IN_ALL = 300.0  # 20 MB in them are half a megabit a second
_FORM_BYTES = 1 << 16  # of a form, beyond the file
_MAX_AT_ONCE = 16  # files of the maximum size that may be incomplete in memory


class StalledError(UserError):
    """An upload that stopped, or that takes too long."""


class BusyError(UserError):
    """Uploads that are under way fill the memory that is set aside for them."""


@dataclasses.dataclass
class Uploads:
    """The uploads under way.

    Attributes:
        max_bytes: of a file.
        num_bytes: of all that has been received and is not complete.
    """

    max_bytes: int
    num_bytes: int = 0

    async def read(self, request: Request) -> bytes | None:
        """The file in a request's body, None if it has more than `max_bytes`.

        A body that is refused is read to its end and nothing of it is kept: many clients hear no answer before.

        Raises:
            StalledError: if no byte comes for 10 seconds, or the end does not come within 5 minutes.
            BusyError: if incomplete uploads take too much memory.
            UserError: for a form without a file.
            ClientDisconnect: if the client goes away.
        """
        body = bytearray()
        try:
            size = await self._receive(request, body)
        except TimeoutError:
            raise StalledError(
                f"The upload stalled: nothing came for {_SECONDS_WITHOUT_BYTES:g} seconds, or its end not within"
                f" {_SECONDS_IN_ALL:g} seconds. Send the file again."
            ) from None
        finally:
            self._drop(body)
        if size > self.max_bytes + _FORM_BYTES:
            return None
        if size > len(body):
            raise BusyError("Too many uploads are under way. Try again when they are done.")
        content = extract(request.headers.get("content-type", ""), bytes(body))
        return content if len(content) <= self.max_bytes else None

    async def _receive(self, request: Request, body: bytearray) -> int:
        """Appends what comes to `body`, which is cleared if that is refused; returns the number of bytes that came."""
        size, maximum = 0, self.max_bytes + _FORM_BYTES
        now = asyncio.get_running_loop().time
        end = now() + _SECONDS_IN_ALL
        async with asyncio.timeout(_SECONDS_WITHOUT_BYTES) as limit:
            async for chunk in request.stream():
                limit.reschedule(min(end, now() + _SECONDS_WITHOUT_BYTES))
                is_refused = len(body) < size  # already
                size += len(chunk)
                if is_refused or size > maximum or self.num_bytes + len(chunk) > _MAX_AT_ONCE * maximum:
                    self._drop(body)
                    body.clear()
                else:
                    body += chunk
                    self.num_bytes += len(chunk)
        return size

    def _drop(self, body: bytearray) -> None:
        self.num_bytes -= len(body)


def extract(content_type: str, body: bytes) -> bytes:
    """The file in a body: the first file of a form (multipart/form-data, RFC 7578), or all of any other body.

    Raises:
        UserError: for a form without a file.
    """
    header = email.message.Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        return body
    # Each part is between two of these; a file may hold neither.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"))[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in head.lower() or b"filename*=" in head.lower():
            return content
    raise UserError('The form has no file. Its field must be one of type "file", as in curl --form image=@FILE.')

"""The routes of the page: the page itself, facts about the run, a prediction, and what the server is doing."""

import asyncio
from collections.abc import Callable, Mapping
import concurrent.futures
import dataclasses
import functools
import importlib.resources
import logging
import math
import time
from typing import Any

import jax
import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from minmax_jax.base.errors import UserError
from minmax_jax.evaluation import trust
from minmax_jax.runs.predictor import Predictor
from minmax_jax.serve import answer_page, answers, guard, uploads
from minmax_jax.serve import shapes as shapes_lib

_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css")} | {
    f"/{name}": (name, "text/javascript") for name in ("page.js", "mask.js")
}
_MAX_WAITING = 8  # predictions; each holds a file in memory
_MAX_COMPILED = 16  # shapes whose compiled networks are kept in memory
logger = logging.getLogger(__name__)


class _TooManyError(UserError):
    """As many images are waiting as may."""


@dataclasses.dataclass
class _Service:
    """What the requests share.

    Attributes:
        predictor: of the run.
        limits: of an image.
        run: facts for the page.
        executor: of one thread, apart from those that the event loop waits for when it ends.
        uploads: that are not complete.
        shapes: [K, 2] of the canvases, None for a method that reads none.
        turn: held by the request whose image is predicted.
        waiting: number of requests for a prediction whose files are complete.
        activity: "idle", "predicting" or "compiling".
        compiled: shapes whose networks are in memory.
    """

    predictor: Predictor
    limits: answers.Limits
    run: dict[str, Any]
    executor: concurrent.futures.Executor
    uploads: uploads.Uploads
    shapes: np.ndarray | None
    turn: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    waiting: int = 0
    activity: str = "idle"
    compiled: set[tuple[int, int]] = dataclasses.field(default_factory=set)


def create(
    predictor: Predictor,
    *,
    name: str,
    results: Mapping[str, Any],
    limits: answers.Limits,
    port: int,
    public_url: guard.PublicUrl | None = None,
) -> Callable[..., Any]:
    """The application, an ASGI callable, which at once begins to compile the networks for its canvases.

    Args:
        predictor: of the run.
        name: of the run.
        results: content of the run's `results.json`, {} without.
        limits: of an image.
        port: at which it is served on this machine; other hosts are refused.
        public_url: the address at which a proxy shows it, if any.
    """
    run = {
        "name": name,
        "class_names": list(predictor.class_names),
        "step": predictor.card["step"],
        "threshold": predictor.card["foreground_threshold"],
        "min_area": answers.MIN_AREA,
        "max_entropy": math.log(len(predictor.class_names)),
        "microns_per_pixel": predictor.card.get("microns_per_pixel", 0.0),
        "prior": results.get("prior", ""),
        "has_second_stage": predictor.card.get("refine", {}).get("enabled", False),
        "flags": trust.find_model_flags(results),
        **dataclasses.asdict(limits),
    }
    service = _Service(
        predictor,
        limits,
        run,
        concurrent.futures.ThreadPoolExecutor(1, "prediction"),
        uploads.Uploads(int(limits.max_megabytes * 1e6)),
        shapes_lib.choose(predictor, limits.max_pixels),
    )
    if service.shapes is not None:
        service.executor.submit(_compile, service, list(map(tuple, service.shapes.tolist())))
    routes = [Route(path, functools.partial(_send_file, *file)) for path, file in _FILES.items()]
    routes += [
        Route("/run", functools.partial(_describe, service)),
        Route("/activity", functools.partial(_tell_activity, service)),
        Route("/predict", functools.partial(_predict, service), methods=["POST"]),
    ]
    return guard.wrap(Starlette(routes=routes), port=port, public_url=public_url)


async def _send_file(name: str, media_type: str, request: Request) -> Response:
    return Response(importlib.resources.files(__package__).joinpath(name).read_bytes(), media_type=media_type)


async def _describe(service: _Service, request: Request) -> Response:
    return JSONResponse(service.run)


async def _tell_activity(service: _Service, request: Request) -> Response:
    return JSONResponse({"activity": service.activity, "waiting": service.waiting})


async def _predict(service: _Service, request: Request) -> Response:
    """The answer for the image in the request's body, one image after another; {"error": text} if there is none.

    As JSON, or as a page for a browser that sends a form, which accepts HTML.
    """
    status, content = 200, {}
    try:
        file = await service.uploads.read(request)
        if file is None:
            raise answers.too_many_bytes(service.limits)
        content = await _wait_and_answer(service, request, file)
    except ClientDisconnect:
        return Response(status_code=204)  # to nobody: the page was given another image
    except Exception as error:
        status, content = _explain(error)
    # Of an upload that was broken off, the rest is not read.
    headers = {"Connection": "close"} if status == 408 else {}
    if "text/html" in request.headers.get("accept", ""):
        page = await asyncio.get_running_loop().run_in_executor(None, answer_page.render, service.run, content)
        return HTMLResponse(page, status, headers)
    return JSONResponse(content, status, headers)


def _explain(error: Exception) -> tuple[int, dict[str, str]]:
    """The status and the content of the answer to a request that failed."""
    statuses = {
        answers.TooLargeError: 413,
        uploads.StalledError: 408,
        uploads.BusyError: 503,
        _TooManyError: 503,
        UserError: 422,
    }
    for kind, status in statuses.items():
        if isinstance(error, kind):
            return status, {"error": str(error)}
    logger.error("An image could not be predicted.", exc_info=error)
    reason = f"The prediction failed ({type(error).__name__}): the terminal of the server has the reason."
    return 500, {"error": reason}


async def _wait_and_answer(service: _Service, request: Request, file: bytes) -> dict[str, Any]:
    """The answer for a file, once all files before it have theirs; a client that goes away gives up its place."""
    if service.waiting >= _MAX_WAITING:
        raise _TooManyError(f"{_MAX_WAITING} images are waiting. Try again when they are done.")
    service.waiting += 1
    try:
        await _wait_for_turn(service, request)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(service.executor, _answer, service, file)
        finally:
            service.turn.release()
    finally:
        service.waiting -= 1


async def _wait_for_turn(service: _Service, request: Request) -> None:
    """Takes the turn.

    Raises:
        ClientDisconnect: if the client goes away before.
    """
    turn, gone = asyncio.ensure_future(service.turn.acquire()), asyncio.ensure_future(_wait_for_end(request))
    try:
        await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_gone, has_turn = gone.done(), turn.done()
        gone.cancel()
        turn.cancel()
    if is_gone:
        if has_turn:
            service.turn.release()
        raise ClientDisconnect


async def _wait_for_end(request: Request) -> None:
    """Returns when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(service: _Service, content: bytes) -> dict[str, Any]:
    """Predicts an image, in the thread of predictions."""
    start = time.monotonic()
    service.activity = "predicting"
    try:
        prepared = answers.prepare(service.predictor, content, limits=service.limits, shapes=service.shapes)
        is_new = prepared.shape not in service.compiled
        if is_new:
            service.activity = "compiling"
            if len(service.compiled) >= _MAX_COMPILED:
                service.compiled.clear()
                jax.clear_caches()
        answer = answers.predict(service.predictor, prepared, model_flags=service.run["flags"])
        service.compiled.add(prepared.shape)
    finally:
        service.activity = "idle"
    return answer | {"compiled": is_new, "seconds": round(time.monotonic() - start, 2)}


def _compile(service: _Service, shapes: list[tuple[int, int]]) -> None:
    """Compiles the networks for the first of the shapes, in the thread of predictions: images come between two shapes.

    An error here is raised again by the answer for an image.
    """
    shape, *rest = shapes
    if shape not in service.compiled:
        service.activity = "compiling"
        try:
            service.predictor.compile(shape)
            service.compiled.add(shape)
        finally:
            service.activity = "idle"
    if rest:
        service.executor.submit(_compile, service, rest)

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
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from minmax_jax.errors import UserError
from minmax_jax.evaluation import trust
from minmax_jax.runs.predictor import Predictor
from minmax_jax.serve import answers, guard

_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css")} | {
    f"/{name}": (name, "text/javascript") for name in ("page.js", "mask.js")
}
_MOST_WAITING = 8  # predictions; each holds a file in memory
_MOST_SHAPES = 16  # sizes of images whose compiled networks are kept in memory
logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _Service:
    """What the requests share.

    Attributes:
        predictor: of the run.
        limits: of an image.
        run: facts for the page.
        executor: of one thread, apart from those that the event loop waits for when it ends.
        turn: held by the request whose image is predicted.
        waiting: number of requests for a prediction.
        activity: "idle", "predicting" or "compiling".
        shapes: sizes that are compiled.
    """

    predictor: Predictor
    limits: answers.Limits
    run: dict[str, Any]
    executor: concurrent.futures.Executor
    turn: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    waiting: int = 0
    activity: str = "idle"
    shapes: set[tuple[int, ...]] = dataclasses.field(default_factory=set)


def create(
    predictor: Predictor, *, name: str, results: Mapping[str, Any], limits: answers.Limits, port: int
) -> Callable[..., Any]:
    """The application, an ASGI callable.

    Args:
        predictor: of the run.
        name: of the run.
        results: content of the run's `results.json`, {} without.
        limits: of an image.
        port: at which it is served on this machine; other hosts are refused.
    """
    run = {
        "name": name,
        "class_names": list(predictor.class_names),
        "step": predictor.card["step"],
        "threshold": predictor.card["foreground_threshold"],
        "least_area": answers.LEAST_AREA,
        "greatest_entropy": math.log(len(predictor.class_names)),
        "microns_per_pixel": predictor.card.get("microns_per_pixel", 0.0),
        "prior": results.get("prior", ""),
        "has_second_stage": predictor.card.get("refine", {}).get("enabled", False),
        "flags": trust.find_model_flags(results),
        **dataclasses.asdict(limits),
    }
    service = _Service(predictor, limits, run, concurrent.futures.ThreadPoolExecutor(1, "prediction"))
    routes = [Route(path, functools.partial(_send_file, *file)) for path, file in _FILES.items()]
    routes += [
        Route("/run", functools.partial(_describe, service)),
        Route("/activity", functools.partial(_tell_activity, service)),
        Route("/predict", functools.partial(_predict, service), methods=["POST"]),
    ]
    return guard.wrap(Starlette(routes=routes), port=port)


async def _send_file(name: str, media_type: str, request: Request) -> Response:
    return Response(importlib.resources.files(__package__).joinpath(name).read_bytes(), media_type=media_type)


async def _describe(service: _Service, request: Request) -> Response:
    return JSONResponse(service.run)


async def _tell_activity(service: _Service, request: Request) -> Response:
    return JSONResponse({"activity": service.activity, "waiting": service.waiting})


async def _predict(service: _Service, request: Request) -> Response:
    """The answer for the image in the request's body, one image after another; {"error": text} if there is none."""
    if service.waiting >= _MOST_WAITING:
        return _refuse(503, f"{_MOST_WAITING} images are waiting. Try again when they are done.")
    service.waiting += 1
    try:
        content = await _read_body(request, service.limits)
        async with service.turn:
            if await request.is_disconnected():
                return Response(status_code=204)  # to nobody: the page was given another image
            loop = asyncio.get_running_loop()
            return JSONResponse(await loop.run_in_executor(service.executor, _answer, service, content))
    except ClientDisconnect:
        return Response(status_code=204)
    except answers.TooLargeError as error:
        return _refuse(413, str(error))
    except UserError as error:
        return _refuse(422, str(error))
    except Exception as error:
        logger.exception("An image could not be predicted.")
        return _refuse(
            500, f"The prediction failed ({type(error).__name__}): the terminal of the server has the reason."
        )
    finally:
        service.waiting -= 1


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


async def _read_body(request: Request, limits: answers.Limits) -> bytes:
    """The whole body; of one that is too long nothing is kept, but all is read: clients hear no answer before."""
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limits.max_megabytes * 1e6:
            body += chunk
        else:
            body.clear()
    if size > limits.max_megabytes * 1e6:
        raise answers.too_many_bytes(limits)
    return bytes(body)


def _answer(service: _Service, content: bytes) -> dict[str, Any]:
    """Predicts an image, in the thread of predictions."""
    start = time.monotonic()
    service.activity = "predicting"
    try:
        prepared = answers.prepare(service.predictor, content, limits=service.limits)
        shape = prepared.padded.shape[:2]
        is_new = shape not in service.shapes
        if is_new:
            service.activity = "compiling"
            if len(service.shapes) >= _MOST_SHAPES:
                service.shapes.clear()
                jax.clear_caches()
        answer = answers.predict(service.predictor, prepared, model_flags=service.run["flags"])
        service.shapes.add(shape)
    finally:
        service.activity = "idle"
    return answer | {"compiled": is_new, "seconds": round(time.monotonic() - start, 2)}

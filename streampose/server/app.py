"""The HTTP and WebSocket face of a live session: the page, the stream, uploads, listings, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

import streampose
from streampose.errors import StreamposeError
from streampose.runtime.predictor import Predictor
from streampose.server.guard import BodyError, Guard, Limits
from streampose.server.messages import (
    FrameMessage,
    HelloMessage,
    ListingMessage,
    PoseMessage,
    ProblemMessage,
    RecordingMessage,
    SkeletonMessage,
    StateMessage,
    StatsMessage,
    SwitchMessage,
    describe_skeleton,
)
from streampose.server.metrics import CONTENT_TYPE, write_metrics
from streampose.server.stage import RECORDED, Busy, Stage, UnknownName
from streampose.server.stream import Broadcast, Client, Options
from streampose.server.uploads import MAX_BOXES, Refused, read_poses

WEB = Path(__file__).parent / "web"
MAX_COORDINATE = 100_000.0
UPLOAD_KINDS = ("image/jpeg", "image/png", "image/webp", "image/bmp", "video/mp4", "application/octet-stream")
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemMessage, "description": text}
    for status, text in {
        400: "A body that cannot be read.",
        401: "The token is missing or wrong.",
        403: "Another site's page, or a name that is not this server's.",
        408: "The body came too slowly.",
        413: "The body is too large.",
        429: "Too many requests.",
    }.items()
}
DESCRIPTION = """Live pose. `WS /v1/stream` carries the poses (query: `video=jpeg|none`, `format=json|compact`, `ack`,
`fps`, `camera`); its messages are in `GET /v1/schema`."""


def refusals(**more: str) -> dict[int | str, dict[str, Any]]:
    """Answers of a route that OpenAPI should tell of, besides those of all routes: `refusals(s404="...")`."""
    return {int(name[1:]): {"model": ProblemMessage, "description": text} for name, text in more.items()}


def _unwell(text: str) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": StateMessage, "description": text}}


def create_app(
    stage: Stage,
    host: str = "127.0.0.1",
    *,
    token: str | None = None,
    secure: bool = False,
    limits: Limits | None = None,
    load_predictor: Callable[[Path], Predictor] | None = None,
    max_subjects: int = 4,
) -> FastAPI:
    """The application around a started session.

    Args:
        host: the address it will be bound to; decides which Host headers are welcome.
        token: what clients must show; None where none is needed.
        secure: it will speak TLS.
        load_predictor: opens a model a second time for uploads, so that they never touch the live one; None refuses
            uploads.
        max_subjects: followed at once in uploaded videos.
    """
    limits = limits or Limits()
    broadcast = Broadcast(stage)
    answers: Counter[int] = Counter()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with broadcast.running():
            yield

    app = FastAPI(
        title="streampose", version=streampose.__version__, description=DESCRIPTION, docs_url=None, redoc_url=None,
        lifespan=lifespan, responses=REFUSALS,
    )  # fmt: skip
    app.state.stage = stage
    app.add_middleware(Guard, host=host, token=token, limits=limits, secure=secure)
    app.add_middleware(_Counting, answers=answers)
    app.mount("/static", StaticFiles(directory=WEB), name="static")
    for error in (RequestValidationError, BodyError, ClientDisconnect):
        app.add_exception_handler(error, _explain)
    _add_page_and_health(app, stage, broadcast, answers)
    _add_listings(app, stage)
    _add_recordings(app, stage)
    _add_uploads(app, stage, limits, load_predictor, max_subjects)

    @app.websocket("/v1/stream")
    async def stream(
        socket: WebSocket,
        video: Literal["jpeg", "none"] = "none",
        format: Literal["json", "compact"] = "json",
        ack: bool = False,
        fps: Annotated[float | None, Query(gt=0, le=1000)] = None,
        camera: Annotated[int | None, Query(ge=0, le=255)] = None,
    ) -> None:
        if len(broadcast.clients) >= limits.clients:
            broadcast.counts.refused += 1
            await socket.close(1013, f"{limits.clients} clients are connected already")
            return
        client = Client(socket, broadcast, Options(video, format, ack, fps, camera))
        await client.run()

    return app


def _add_page_and_health(app: FastAPI, stage: Stage, broadcast: Broadcast, answers: Counter[int]) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    @app.get("/v1/status")
    def status() -> StatsMessage:
        """State, rates, latencies and counts."""
        return stage.session.stats().model_copy(update={"clients": len(broadcast.clients)})

    @app.get("/v1/skeleton")
    async def skeleton() -> SkeletonMessage:
        """Joints and bones of the model being served."""
        return describe_skeleton(stage.session.predictor.skeleton)

    @app.get("/v1/schema")
    async def schema() -> dict[str, Any]:
        """JSON Schema of the messages of `WS /v1/stream`, which OpenAPI has no place for."""
        return {model.__name__: model.model_json_schema() for model in (HelloMessage, FrameMessage, StatsMessage)}

    @app.get(
        "/healthz",
        response_model_exclude_none=True,
        responses={503: {"model": StateMessage, "description": "The session has failed."}},
    )
    async def healthy(response: Response) -> StateMessage:
        """200 while the process does its work, 503 once the session has failed."""
        if stage.session.failure is not None:
            response.status_code = 503
            return StateMessage(status="failed", error=str(stage.session.failure))
        return StateMessage(status="ok")

    @app.get(
        "/readyz",
        response_model_exclude_none=True,
        responses={503: {"model": StateMessage, "description": "No poses at present."}},
    )
    async def ready(response: Response) -> StateMessage:
        """200 while poses are being published, 503 before the first one and while the source is lost."""
        response.status_code = 200 if stage.session.ready else 503
        return StateMessage(status="ready" if stage.session.ready else broadcast.stats().state)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text."}},
    )
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        text = write_metrics(
            broadcast.stats(), broadcast.counts, ready=stage.session.ready, version=streampose.__version__,
            answers=answers,
        )  # fmt: skip
        return Response(text, media_type=CONTENT_TYPE)


def _add_listings(app: FastAPI, stage: Stage) -> None:
    @app.get("/v1/models")
    def models() -> ListingMessage:
        """The models that may be served, by name."""
        return ListingMessage(current=stage.model, names=stage.models())

    @app.get("/v1/sources")
    def sources() -> ListingMessage:
        """The sources that may be served, by name."""
        return ListingMessage(current=stage.source, names=stage.sources())

    @app.put(
        "/v1/session",
        responses=refusals(
            s404="A name that is not listed.", s409="Another exchange is going on, or this source cannot be opened."
        ),
    )
    def switch(wanted: SwitchMessage) -> StatsMessage:
        """Serve another source, another model or both, chosen from the listings; the streams go on with a new hello."""
        try:
            stage.switch(wanted.source, wanted.model)
        except UnknownName as error:
            raise HTTPException(404, str(error)) from None
        except (Busy, StreamposeError) as error:
            raise HTTPException(409, str(error)) from None
        return stage.session.stats()


def _add_recordings(app: FastAPI, stage: Stage) -> None:
    @app.post("/v1/recording", responses=refusals(s409="Not allowed, running already, or the disk is full."))
    def start() -> RecordingMessage:
        """Record what is shown, one video a camera and the poses, on the server's disk."""
        if stage.recordings is None:
            raise HTTPException(409, "recording is off: this server stores no pictures")
        try:
            return stage.session.start_recording()
        except StreamposeError as error:
            raise HTTPException(409, str(error)) from None

    @app.delete("/v1/recording", responses=refusals(s409="Nothing was recorded."))
    def stop() -> RecordingMessage:
        """Finish the recording; its files are complete afterwards."""
        if stage.recordings is None or stage.session.stats().recording is None:
            raise HTTPException(409, "nothing was recorded")
        return stage.session.stop_recording()

    @app.get("/v1/recordings")
    def listing() -> ListingMessage:
        """Files that were recorded, newest first; `current` is the recording that runs."""
        recording = stage.session.stats().recording
        return ListingMessage(
            current=recording.name if recording is not None and recording.running else None,
            names=list(stage.recorded()),
        )

    @app.get(
        "/v1/recordings/{name}",
        response_class=FileResponse,
        responses={200: {"content": {kind: {} for kind in RECORDED.values()}}, **refusals(s404="Not listed.")},
    )
    def download(name: str) -> FileResponse:
        """One file of the listing."""
        path = stage.recorded().get(name)
        if path is None:
            raise HTTPException(404, "no such recording; GET /v1/recordings lists them")
        return FileResponse(path, media_type=RECORDED[path.suffix], filename=path.name)


def _add_uploads(
    app: FastAPI, stage: Stage, limits: Limits, load: Callable[[Path], Predictor] | None, max_subjects: int
) -> None:
    places = asyncio.Semaphore(limits.uploads)
    turn = anyio.Lock()
    loaded: dict[tuple[Path, int], Predictor] = {}

    def predictor_for(folder: Path) -> Predictor:
        key = (folder, (folder / "bundle.json").stat().st_mtime_ns)  # a better model may have taken its place
        if key not in loaded:
            assert load is not None
            predictor = load(folder)
            loaded.clear()  # one at a time
            loaded[key] = predictor
        return loaded[key]

    @app.post(
        "/v1/pose",
        responses=refusals(
            s400="An empty body.", s404="A model that is not listed.", s409="A model that cannot be used.",
            s413="Too large or too long.",
            s415="Neither a picture nor a video that is accepted.",
            s422="A damaged file, or an option that makes no sense.", s503="Too many uploads at once.",
        ),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in UPLOAD_KINDS},
            }
        },
    )  # fmt: skip
    async def pose(
        request: Request,
        model: Annotated[str | None, Query(max_length=1000, description="A name of GET /v1/models.")] = None,
        box: Annotated[
            list[str] | None,
            Query(
                description="x0,y0,x1,y1: where a subject of a picture is, edges in pixels; give it once a subject.",
                max_length=MAX_BOXES,
            ),
        ] = None,
    ) -> PoseMessage:
        """Poses of a picture or of a short video, whose bytes are the body (`curl --data-binary @picture.jpg`).

        Nothing is stored. A picture is searched as a whole for one subject, unless boxes say where they are.
        """
        name = stage.model if model is None else model
        folder = stage.model_path(name)
        if load is None or name is None or folder is None:
            raise HTTPException(404, f"no model is listed as {name!r}; GET /v1/models lists them")
        boxes = [_parse_box(text) for text in box or ()]
        if places.locked():
            raise HTTPException(503, "other uploads are being worked on; try again", {"retry-after": "2"})
        async with places:
            data = await request.body()

            def work() -> PoseMessage:
                return read_poses(
                    data, predictor_for(folder), boxes, model=name, max_subjects=max_subjects,
                    in_memory=stage.private,
                )  # fmt: skip

            try:
                async with turn:
                    return await anyio.to_thread.run_sync(work)
            except Refused as error:
                raise HTTPException(error.status, str(error)) from None
            except (StreamposeError, OSError) as error:
                raise HTTPException(409, f"the model {name!r} cannot be used: {error}") from None


def _parse_box(text: str) -> np.ndarray:
    """`x0,y0,x1,y1` -> (4,).

    Raises:
        HTTPException: 422.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text[:200].split(","))
    except ValueError:
        raise HTTPException(422, f"box={text[:60]}: expected four numbers, x0,y0,x1,y1") from None
    if not (abs(x0) < MAX_COORDINATE and abs(y1) < MAX_COORDINATE and 1 <= x1 - x0 < MAX_COORDINATE):
        raise HTTPException(422, f"box={text[:60]}: x1 must be greater than x0 by a pixel or more")
    if not 1 <= y1 - y0 < MAX_COORDINATE:
        raise HTTPException(422, f"box={text[:60]}: y1 must be greater than y0 by a pixel or more")
    return np.array([x0, y0, x1, y1], np.float32)


async def _explain(_: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, in one line."""
    if isinstance(error, BodyError):
        return JSONResponse({"detail": str(error)}, error.status)
    if not isinstance(error, RequestValidationError):
        return JSONResponse({"detail": "the client left before its body was complete"}, 400)
    problems = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
    return JSONResponse({"detail": "; ".join(problems)[:2000]}, 422)


class _Counting:
    """ASGI middleware: counts answers by status."""

    def __init__(self, app: Any, answers: Counter[int]):
        self.app, self.answers = app, answers

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def counting_send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
            await send(message)

        await self.app(scope, receive, counting_send if scope["type"] == "http" else send)

"""The web server of the live view: viser's, with origins and messages checked on arrival.

viser accepts websockets of every page in the browser and trusts what they send: a camera of two
numbers or a value that is not on its list would reach the training, and any client can make viser
open a tunnel to the internet. Here a websocket must come from the page that this server serves, and
only the messages that this page needs pass: its camera, and allowed values of inputs.
Not covered: a program on this machine that poses as the page can move cameras and press buttons.
"""

import contextlib
import functools
import io
from collections.abc import Collection, Iterator
from typing import Annotated, Any

import msgspec
import viser
import websockets.asyncio.server
from msgspec import Meta
from websockets.asyncio.server import ServerConnection

Coordinate = Annotated[float, Meta(ge=-1e5, le=1e5)]
Vector = tuple[Coordinate, Coordinate, Coordinate]
Distance = Annotated[float, Meta(ge=0, le=1e9)]
Pixels = Annotated[float, Meta(ge=1, le=1e5)]
Value = str | bool


class CameraMessage(
    msgspec.Struct, tag_field="type", tag="ViewerCameraMessage", forbid_unknown_fields=True
):
    """The camera of a page, as viser sends it."""

    wxyz: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    position: Vector
    fov: Annotated[float, Meta(ge=0.01, le=3.1)]  # radians
    near: Distance
    far: Distance
    image_height: Pixels
    image_width: Pixels
    look_at: Vector
    up_direction: Vector


class Update(msgspec.Struct, forbid_unknown_fields=True):
    """The new value of an input."""

    value: Value


class InputMessage(
    msgspec.Struct, tag_field="type", tag="GuiUpdateMessage", forbid_unknown_fields=True
):
    """A pressed button or a chosen value."""

    uuid: str
    updates: Update


class Inputs:
    """Checks what pages send: `allowed` holds the accepted values of each input, by its uuid."""

    def __init__(self) -> None:
        self.allowed: dict[str, Collection[Value]] = {}
        self._decoder = msgspec.msgpack.Decoder(CameraMessage | InputMessage)

    def allow(self, handle: Any, values: Collection[Value]) -> None:
        """Let pages set an input of viser's panel to one of `values`."""
        self.allowed[handle._impl.uuid] = values

    def check(self, raw: str | bytes) -> bytes | None:
        """Return a message with only its checked fields, or None if it is invalid."""
        if isinstance(raw, str):
            return None
        try:
            message = self._decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if isinstance(message, InputMessage):
            allowed = self.allowed.get(message.uuid, ())
            if message.updates.value not in allowed:
                return None
        return msgspec.msgpack.encode(message)


class CheckedConnection(ServerConnection):
    """A websocket that drops invalid messages."""

    def __init__(self, *arguments: Any, inputs: Inputs, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.inputs = inputs

    async def recv(self, decode: bool | None = None) -> Any:
        while True:
            message = self.inputs.check(await super().recv(decode))
            if message is not None:
                return message


def start(host: str, port: int, inputs: Inputs) -> viser.ViserServer:
    """Start viser's server; it takes another port if this one is in use.

    Raises ImportError for a version of viser whose server cannot be checked.
    """
    silent = contextlib.redirect_stdout(io.StringIO())  # viser's banner
    with _checked_websockets(port, inputs) as calls, silent:
        server = viser.ViserServer(host, port, label="Text to 3D", verbose=False)
        if not calls:
            server.stop()
            raise ImportError(f"viser {viser.__version__} starts its server in an unknown way")
    return server


@contextlib.contextmanager
def _checked_websockets(port: int, inputs: Inputs) -> Iterator[list[int]]:
    """Make websocket servers check origins and messages within the block. Yield their ports.

    viser has no setting for either, so the function that it calls is replaced while it starts.
    """
    serve = websockets.asyncio.server.serve
    ports: list[int] = []

    def checked_serve(handler: Any, host: str, port_attempt: int, **options: Any) -> Any:
        ports.append(port_attempt)
        options["origins"] = [f"http://{name}:{port}" for name in ("localhost", host)]
        options["create_connection"] = functools.partial(CheckedConnection, inputs=inputs)
        return serve(handler, host, port_attempt, **options)

    websockets.asyncio.server.serve = checked_serve  # type: ignore[misc, assignment]
    try:
        yield ports
    finally:
        websockets.asyncio.server.serve = serve  # type: ignore[misc]

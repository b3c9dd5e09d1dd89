"""The live view: its page, its camera, its buttons, and training that continues beside it."""

import json
import math
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import torch
import websockets.sync.client
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.typing import Subprotocol

from course.errors import CourseWarning
from course.models import find_model
from task_3_DreamFusion.nerf import gui
from task_3_DreamFusion.nerf.export import as_bytes
from task_3_DreamFusion.nerf.gui import (
    ClientState,
    GuiError,
    LiveView,
    camera_at,
    next_height,
    panel,
)
from task_3_DreamFusion.nerf.gui_server import Inputs
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.renderer import SHADING_MODES
from task_3_DreamFusion.nerf.settings import Settings
from task_3_DreamFusion.nerf.utils import Trainer
from tests.task_3.browser import Browser


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((gui.HOST, 0))
        return probe.getsockname()[1]


@pytest.fixture
def trainer(tiny_folder, tmp_path) -> Trainer:
    settings = Settings(
        "a car", iters=10**6, batch_size=1, size=8, reuse=1, rays=64, max_steps=24, grid_size=16
    )
    return Trainer(settings, StableDiffusion(find_model(tiny_folder)), tmp_path / "run")


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.05)


def seen_from(elevation: float = 15.0, aspect: float = 1.0, at: float = 1.0) -> SimpleNamespace:
    """A camera as viser has it, where orbit(1) has its own."""
    pose = orbit(1, elevation).poses()[0]
    return SimpleNamespace(
        position=pose[:3, 3].double().numpy(),
        look_at=np.zeros(3),
        fov=math.radians(40),
        aspect=aspect,
        update_timestamp=at,
    )


def test_the_page_is_served_here_and_gone_afterwards(port, capsys):
    address = f"http://localhost:{port}"
    with LiveView(port, "a car"):
        assert capsys.readouterr().out == f"live view: {address}\n"
        page = urllib.request.urlopen(address, timeout=20)
        assert page.status == 200 and b"<html" in page.read()
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=5)


def test_a_port_in_use(port):
    with socket.socket() as other:
        other.bind((gui.HOST, port))
        other.listen()
        with pytest.raises(
            GuiError, match=f"--gui_port {port} is used by another program.*such as {port + 1}"
        ):
            LiveView(port, "a car")


def test_a_port_is_asked_for_before_viser_starts(port, monkeypatch):
    """viser takes the next one where it may not have this."""
    from task_3_DreamFusion.nerf import gui_server

    def refuse(self: object, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(gui_server, "start", lambda *_: pytest.fail("viser was started"))
    with socket.socket() as other:
        other.bind((gui.HOST, port))
        other.listen()
        with pytest.raises(GuiError, match=f"--gui_port {port} is used by another program"):
            LiveView(port, "a car")
    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(GuiError, match="--gui_port 80 is not allowed here: choose one above 1024"):
        LiveView(80, "a car")


def test_a_port_in_use_in_between(port, monkeypatch):
    from task_3_DreamFusion.nerf import gui_server

    stopped: list[bool] = []
    server = SimpleNamespace(get_port=lambda: port + 1, stop=lambda: stopped.append(True))
    monkeypatch.setattr(gui_server, "start", lambda *_: server)
    with pytest.raises(GuiError, match=f"--gui_port {port} is used by another program"):
        LiveView(port, "a car")
    assert stopped == [True]


def test_what_a_page_begins_with(port, monkeypatch):
    """The camera of a training view, upright; no button that opens a tunnel to the internet."""
    directions: list[object] = []
    monkeypatch.setattr(
        "viser.SceneApi.set_up_direction",
        lambda self, direction: directions.append(direction),
    )
    with LiveView(port, "a car") as view:
        camera, ours = view.server.initial_camera, orbit(1, 15.0).poses()[0, :3, 3].numpy()
        place, radius = camera.position, np.linalg.norm(camera.position)
        assert place / radius == pytest.approx(ours / np.linalg.norm(ours), abs=1e-5)
        assert radius == pytest.approx(3.434, abs=1e-3)  # an object of 0.6 fills the height
        assert camera.look_at == pytest.approx((0, 0, 0)) and math.degrees(camera.fov) == 40
        assert directions[-1] == "+y" and view.progress.value == 0
        sent = list(view.server._websock_server._broadcast_buffer.message_from_id.values())
        [theme] = [each for each in sent if type(each).__name__ == "ThemeConfigurationMessage"]
        assert theme.show_share_button is False and theme.show_logo is False
        assert (view.shading.value, view.shading.options) == ("albedo", SHADING_MODES)


def test_without_viser(port, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    monkeypatch.delitem(sys.modules, "task_3_DreamFusion.nerf.gui_server", raising=False)
    monkeypatch.delattr("task_3_DreamFusion.nerf.gui_server", raising=False)
    with pytest.raises(GuiError, match=r"--gui needs viser 1.1 \(.*\): pip install 'viser<1.2'"):
        LiveView(port, "a car")


def test_a_viser_whose_server_cannot_be_checked_does_not_run(port, monkeypatch):
    import viser

    server = SimpleNamespace(stop=lambda: stopped.append(True))
    stopped: list[bool] = []
    monkeypatch.setattr(viser, "ViserServer", lambda *_, **__: server)
    with pytest.raises(GuiError, match=r"viser 1\S+ starts its server in an unknown way"):
        LiveView(port, "a car")
    assert stopped == [True]


# --- What comes from outside


def test_it_listens_on_this_machine_alone(port):
    with LiveView(port, "a car"):
        sockets = psutil.Process().net_connections("tcp")
        hosts = {each.laddr.ip for each in sockets if each.laddr.port == port and not each.raddr}
        assert hosts == {"127.0.0.1"}


FOREIGN = [
    None,
    "",
    "null",
    "file://",
    "http://evil.example",
    "http://evil.example:{port}",
    "https://localhost:{port}",
    "http://localhost",
    "http://localhost:1{port}",
    "http://localhost.evil.example:{port}",
    "http://127.0.0.1:{port}.evil.example",
    "http://127.0.0.2:{port}",
]


def connect(port: int, origin: str | None) -> ClientConnection:
    """Connect to the view as a page of an origin does."""
    import viser

    address, protocol = f"ws://127.0.0.1:{port}", Subprotocol(f"viser-v{viser.__version__}")
    return websockets.sync.client.connect(address, origin=origin, subprotocols=[protocol])


def test_only_its_own_page_may_connect(port, capfd):
    with LiveView(port, "a car"):
        for origin in FOREIGN:
            with pytest.raises(InvalidStatus) as refused:
                connect(port, origin and origin.format(port=port))
            assert refused.value.response.status_code == 403
        for host in ("localhost", "127.0.0.1"):
            with connect(port, f"http://{host}:{port}") as connection:
                assert connection.recv()
    output = capfd.readouterr()
    assert "Traceback" not in output.err and output.out == f"live view: http://localhost:{port}\n"


def camera(**changes: object) -> dict[str, object]:
    """A message of viser's page."""
    message = {
        "type": "ViewerCameraMessage",
        "wxyz": [1, 0, 0, 0.0],
        "position": [0, 0.5, 3],
        "fov": 0.7,
        "near": 0.01,
        "far": 1000,
        "image_height": 600,
        "image_width": 900,
        "look_at": [0, 0, 0],
        "up_direction": [0, 1, 0],
    }
    return {**message, **changes}


def update(uuid: str, **updates: object) -> dict[str, object]:
    return {"type": "GuiUpdateMessage", "uuid": uuid, "updates": updates}


HOSTILE: list[object] = [
    camera(image_height=0),
    camera(image_width=0),
    camera(image_width=-5),
    camera(image_height=math.nan),
    camera(image_height="600"),
    camera(image_width=1.1e5),
    camera(image_height=0.9),
    camera(position=[1, 2]),
    camera(position=[1, 2, 3, 4]),
    camera(position=[]),
    camera(position=None),
    camera(position="up there"),
    camera(position=[math.nan, 0, 0]),
    camera(position=[1e300, 0, 0]),
    camera(position=[0, 1.1e5, 0]),
    camera(position=[0, 0, -1.1e5]),
    camera(position=[[1], [2], [3]]),
    camera(look_at=[0, math.inf, 0]),
    camera(look_at={}),
    camera(up_direction=[0, 1]),
    camera(wxyz=[1, 0, 0]),
    camera(fov=0),
    camera(fov=math.pi),
    camera(fov=0.009),
    camera(fov=-1),
    camera(fov=None),
    camera(near=-1),
    camera(far=math.nan),
    camera(far=1.1e9),
    camera(more=1),
    {"type": "ViewerCameraMessage"},
    {"type": "GuiUpdateMessage"},
    {"type": "GuiUpdateMessage", "uuid": "SHADING", "updates": {}},
    {"type": "GuiUpdateMessage", "uuid": "SHADING", "updates": None},
    update("SHADING", value="no such mode"),
    update("SHADING", value=""),
    update("SHADING", value=0),
    update("SHADING", value=None),
    update("SHADING", value=True),
    update("SHADING", value=["albedo"]),
    update("SHADING", value={"albedo": 1}),
    update("SHADING", value="albedo", removed=True),
    update("SHADING", removed=True),
    update("SHADING", update_cb=[]),
    update("SHADING", nothing=1),
    update("STOP", value=False),
    update("STOP", value=1),
    update("STOP", value="albedo"),
    update("STOP", disabled=True),
    update("nobody", value="albedo"),
    update("", value=True),
    {"type": "ShareUrlRequest"},
    {"type": "ShareUrlDisconnect"},
    {"type": "GuiRemoveMessage", "uuid": "SHADING"},
    {"type": "GuiButtonHoldMessage", "uuid": "STOP", "frequency": 1.0},
    {"type": "RunJavascriptMessage", "source": "alert(1)"},
    {"type": "FileTransferStartUpload", "source_component_uuid": "SHADING"},
    {"type": "no such type"},
    {"type": ["ViewerCameraMessage"]},
    {"type": None},
    {},
    [],
    None,
    5,
    "text",
    b"",
    b"\xc1",
    b"\x81",
    b"\x81\xa4type",
    b"\x81\xa4type\xa1\xff",
    b"\x91" * 10**5,
    b"\x81\xa1a" * 10**5,
    b"\xff" * 10**6,
]


def encoded(message: object) -> bytes:
    return message if isinstance(message, bytes) else msgspec.msgpack.encode(message)


@pytest.fixture
def inputs() -> Inputs:
    inputs = Inputs()
    for name, values in (("SHADING", SHADING_MODES), ("STOP", (True,))):
        inputs.allow(SimpleNamespace(_impl=SimpleNamespace(uuid=name)), values)
    return inputs


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_an_invalid_message_is_dropped(inputs, message):
    assert inputs.check(encoded(message)) is None


@pytest.mark.parametrize("text", ["", "text", "\0", '{"type": "ShareUrlRequest"}', "\ud800"])
def test_a_message_of_text_is_dropped(inputs, text):
    assert inputs.check(text) is None


@pytest.mark.parametrize(
    "message",
    [
        camera(),
        camera(position=[1e5, -1e5, 0], near=0, far=1e9),
        camera(image_height=1, image_width=1e5, fov=3.1),
        camera(fov=0.01),
        *(update("SHADING", value=mode) for mode in SHADING_MODES),
        update("STOP", value=True),
    ],
)
def test_a_valid_message_passes(inputs, message):
    passed = inputs.check(encoded(message))
    assert passed is not None and msgspec.msgpack.decode(passed) == message


@given(st.binary(max_size=200) | st.text())
def test_no_bytes_are_an_error(raw):
    assert Inputs().check(raw) is None


@given(
    st.sampled_from(sorted(camera())),
    st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.floats(), max_size=5),
)
def test_what_passes_is_a_camera(name, value):
    passed = Inputs().check(encoded(camera(**{name: value})))
    if passed:
        message = SimpleNamespace(**msgspec.msgpack.decode(passed))
        result = camera_at(np.array(message.position), np.array(message.look_at), message.fov)
        assert torch.isfinite(result.poses()).all() and 0 < result.fov < 180
        assert message.image_height >= 1 and message.image_width >= 1


def test_a_script_cannot_end_or_change_the_training(port, trainer, capfd):
    """It sends everything hostile, then a valid camera; nothing of it is an error anywhere."""
    with LiveView(port, "a car") as view, connect(port, f"http://localhost:{port}") as script:
        uuids = {"SHADING": view.shading._impl.uuid, "STOP": view.stop._impl.uuid}
        script.send(encoded(camera()))
        for message in HOSTILE:
            if isinstance(message, dict) and message.get("uuid") in uuids:
                message = {**message, "uuid": uuids[message["uuid"]]}
            script.send(encoded(message))
        script.send("text")
        script.send(encoded(camera(position=[0, 0, 2])))
        script.send(encoded(update(uuids["SHADING"], value="normals")))
        wait_until(lambda: view.shading.value == "normals")
        wait_until(lambda: bool(view.server.get_clients()))
        for _ in range(3):
            view.after_step(trainer, trainer.train_step())
        [client] = view.server.get_clients().values()
        assert tuple(client.camera.position) == (0, 0, 2) and client.camera.aspect == 1.5
        assert view.clients and not view.has_failed and not view.stopped.is_set()
    error = capfd.readouterr().err
    assert "Traceback" not in error and "exception" not in error


class Page:
    """A page as the server sees it: a websocket that sends a camera, choices and presses."""

    def __init__(self, view: LiveView, port: int) -> None:
        self.view, self.socket = view, connect(port, f"http://localhost:{port}")

    def move(self, **changes: object) -> None:
        before = self.seen()
        self.socket.send(encoded(camera(**changes)))
        wait_until(lambda: self.seen() != before)

    def seen(self) -> list[float]:
        clients = list(self.view.server.get_clients().values())
        return [client.camera.update_timestamp for client in clients]

    def set(self, handle: Any, value: object) -> None:
        self.socket.send(encoded(update(handle._impl.uuid, value=value)))


def test_a_page_gets_an_image_whenever_one_is_due(port, trainer, monkeypatch):
    with LiveView(port, "a car") as view:
        page = Page(view, port)
        heights: list[int] = []

        def image(trainer: Trainer, camera: object, height: int) -> np.ndarray:
            heights.append(height)
            return np.zeros((height, height, 3), np.uint8)

        def images(step: int) -> int:
            trainer.step, before = step, len(heights)
            view.after_step(trainer, {"error": 0.5})
            return len(heights) - before

        monkeypatch.setattr(view, "render", image)
        monkeypatch.setattr(gui, "time", SimpleNamespace(monotonic=lambda: 100.0))
        assert images(0) == 0 and not view.clients
        page.move()
        assert images(0) == 1 and heights == [64]  # a first one, quickly
        assert images(0) == 1 and heights[-1] == 128  # and a finer one, since it took no time
        assert images(0) == 0  # nothing new to see
        assert images(1) == 1 and images(1) == 0  # a step
        page.move(position=[3, 0, 0])
        assert [images(1) for _ in range(3)] == [1, 1, 0]
        page.set(view.shading, "normals")
        wait_until(
            lambda: all(client_state.camera_time == -1 for client_state in view.clients.values())
        )
        assert view.shading.value == "normals" and images(1) == 1
        [client_state] = view.clients.values()
        assert page.seen() == [client_state.camera_time] and client_state.seconds == 0
        page.socket.close()
        wait_until(lambda: not view.server.get_clients())
        assert images(2) == 0 and not view.clients


def test_buttons_of_a_page(port, trainer):
    with LiveView(port, "a car") as view:
        page = Page(view, port)
        page.move()
        for is_paused, label in ((True, "Continue"), (False, "Pause"), (True, "Continue")):
            page.set(view.pause, True)
            wait_until(lambda label=label: view.pause.label == label)
            assert view.paused.is_set() == is_paused
        waits = threading.Thread(target=view.after_step, args=(trainer, {"error": 1.0}))
        waits.start()
        page.set(view.stop, True)
        waits.join(60)
        assert not waits.is_alive() and trainer.interrupt.requested
        assert view.stopped.is_set() and not view.paused.is_set()


def test_the_panel_has_step_terms_and_progress(port, trainer, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(gui, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with LiveView(port, "a car") as view:
        for seconds, step, expected in ((0, 5, 5), (0.19, 6, 5), (0.02, 7, 7), (0.1, 10**6, 10**6)):
            now[0] += seconds  # five times a second, and at the end
            trainer.step = step
            view.after_step(trainer, {"error": 1 / 3})
            line = f"step {expected} of 1000000"
            assert view.text.content == panel("a car", line, {"error": 1 / 3})
            assert view.progress.value == pytest.approx(100 * expected / 10**6)


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("render", ZeroDivisionError("float division by zero")),
        ("render", ValueError("no look 'x'")),
        ("render", AssertionError()),
        ("render", torch.OutOfMemoryError("CUDA out of memory")),
        ("_update_panel", OSError(28, "No space left on device")),
    ],
)
def test_an_error_of_the_view_never_reaches_the_training(port, trainer, monkeypatch, method, error):
    def fail(*_: object) -> None:
        calls.append(trainer.step)
        raise error

    calls: list[int] = []
    seen = SimpleNamespace(camera=seen_from(), scene=None)
    with LiveView(port, "a car") as view:
        monkeypatch.setattr(view, method, fail)
        monkeypatch.setattr(view.server, "get_clients", lambda: {0: seen})
        if method == "_update_panel":
            monkeypatch.setattr(view, "_update_images", lambda trainer: None)

        def after(trainer: Trainer, terms: dict[str, float]) -> None:
            if trainer.step == 3:
                view.stopped.set()
            view.after_step(trainer, terms)

        expected = (
            rf"live view is off after an error; the training continues \({type(error).__name__}"
        )
        with pytest.warns(CourseWarning, match=expected) as warned:
            assert trainer.train(preview_every=0, after_step=after) is False  # by the stop button
        assert trainer.step == 3 and calls == [1]
    assert len([each for each in warned if each.category is CourseWarning]) == 1


def test_ctrl_c_in_the_view_ends_the_run(port, trainer, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with LiveView(port, "a car") as view:
        monkeypatch.setattr(view, "_update_images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            view.after_step(trainer, {"error": 1.0})


# --- The panel

INJECTION = (
    'x <iframe srcdoc="<script>parent.hacked = 1</script>">'  # tests/publish/test_pages.py has more
)


def test_the_view_shows_the_text_in_its_panel_alone(port, trainer):
    """Which is no Markdown: viser renders HTML in that."""
    with LiveView(port, INJECTION) as view:
        assert view.text.content == panel(INJECTION, "The model is being loaded ...", {})
        view.after_step(trainer, {"opacity": 0.5})
        assert view.text.content == panel(INJECTION, "step 0 of 1000000", {"opacity": 0.5})
        sent = view.server._websock_server._broadcast_buffer.message_from_id.values()
        assert not [message for message in sent if "Markdown" in type(message).__name__]


# --- What it shows


@pytest.mark.parametrize("elevation", [-40.0, 0.0, 15.0, 80.0])
def test_its_camera_is_ours(elevation):
    for start in (0.0, 100.0, -170.0):
        ours = orbit(1, elevation, start=start)
        shifted = torch.tensor([0.1, -0.2, 0.3])
        result = camera_at(
            (ours.poses()[0, :3, 3] + shifted).numpy(), shifted.numpy(), math.radians(40)
        )
        pose = ours.poses()
        pose[0, :3, 3] += shifted
        torch.testing.assert_close(result.poses(), pose, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(result.fov, ours.fov)


def test_a_camera_straight_above_and_one_at_its_target_are_cameras():
    for position in ((0, 3, 0), (0, -3, 0), (0, 0, 0)):
        assert torch.isfinite(camera_at(np.array(position), np.zeros(3), 0.7).poses()).all()


def test_the_image_is_the_averaged_field_from_there(port, trainer):
    trainer.train_step()
    with LiveView(port, "a car") as view:
        result = view.render(trainer, seen_from(), 12)
        expected = trainer.images(orbit(1), 12)[0]
        assert np.abs(result.astype(int) - as_bytes(expected[:3])).max() <= 1
        for mode in view.shading.options:
            view.shading.value = mode
            assert view.render(trainer, seen_from(aspect=1.5), 12).shape == (12, 18, 3)


def test_an_image_is_never_without_width_nor_too_wide(port, trainer):
    with LiveView(port, "a car") as view:
        for aspect, width in ((1e-5, 1), (0.5, 12), (1e5, 1024)):
            assert view.render(trainer, seen_from(aspect=aspect), 24).shape == (24, width, 3)


def test_a_light_stands_at_the_camera(port, trainer, monkeypatch):
    shadings = []
    render_eval = trainer.renderer.render_eval

    def record(cameras: Any, height: int, width: int, shading: Any) -> Any:
        shadings.append(shading)
        return render_eval(cameras, height, width, shading)

    monkeypatch.setattr(trainer.renderer, "render_eval", record)
    seen = seen_from()
    with LiveView(port, "a car") as view:
        for mode in SHADING_MODES:
            view.shading.value = mode
            view.render(trainer, seen, 4)
    assert [shading.mode for shading in shadings] == list(SHADING_MODES)
    for shading in shadings:
        assert shading.lights.numpy() == pytest.approx(seen.position[None], abs=1e-5)


def test_a_new_page_is_due_at_once():
    client_state = ClientState()
    assert client_state.height == 64 and client_state.is_due(moved=False, changed=False)


def test_an_image_may_take_longer_while_the_camera_rests():
    for seconds, at_rest in ((0.1, False), (0.4, True)):
        client_state = ClientState()
        client_state.record(seconds, 1.0, at_rest)
        assert client_state.height == 64
        client_state.record(4 * seconds, 1.0, at_rest)
        assert (
            client_state.height == 32
            and client_state.seconds == 4 * seconds
            and client_state.at_rest == at_rest
        )


def test_images_are_as_large_as_time_allows():
    assert (gui.MIN_HEIGHT, gui.MAX_HEIGHT) == (24, 512)
    assert (
        next_height(100, 0.1, 0.1) == 100
        and next_height(100, 0.4, 0.1) == 50
        and next_height(100, 0.05, 0.1) == 141
    )
    assert next_height(100, 1e-9, 0.1) == 200 and next_height(30, 9.0, 0.1) == gui.MIN_HEIGHT
    assert next_height(500, 1e-9, 0.1) == gui.MAX_HEIGHT


def test_training_keeps_most_of_the_time(monkeypatch):
    """Steps of 0.1 s, images of 0.2 s: images take at most a fifth of the time at rest."""
    now = [100.0]
    monkeypatch.setattr(gui.time, "monotonic", lambda: now[0])
    client_state, drawing = ClientState(), 0.0
    for _ in range(1000):
        now[0] += 0.1
        if client_state.is_due(moved=False, changed=True):
            now[0] += 0.2
            drawing += 0.2
            client_state.record(0.2, 1.0, at_rest=True)
    assert 0.15 < drawing / (now[0] - 100) <= 0.2 + 0.01
    assert not client_state.is_due(moved=False, changed=True) and client_state.is_due(
        moved=True, changed=False
    )
    now[0] += 10
    assert not client_state.is_due(moved=False, changed=False)  # nothing new to see


def test_stop_ends_the_run_with_a_checkpoint(port, trainer):
    with LiveView(port, "a car") as view:
        after = lambda trainer, terms: (
            view.stopped.set() if trainer.step == 3 else None,
            view.after_step(trainer, terms),
        )
        assert trainer.train(preview_every=0, after_step=after) is False
        assert (
            re.search(r"step [1-3] of 1000000", view.text.content)
            and "opacity" in view.text.content
        )
    assert (trainer.checkpoints / "000003.pt").exists()


def test_a_paused_training_waits_and_ctrl_c_ends_that(port, trainer):
    with LiveView(port, "a car") as view:
        view.paused.set()
        waits = threading.Thread(target=view.after_step, args=(trainer, {"error": 1.0}))
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
        trainer.interrupt.requested = True
        waits.join(5)
        assert not waits.is_alive()


@pytest.mark.slow
def test_a_browser_sees_the_training_and_its_mouse_moves_the_camera(port, trainer, tmp_path):
    browser, view = Browser(tmp_path / "profile"), LiveView(port, INJECTION)
    positions, steps, failed = [], [], []

    def drive() -> None:
        try:
            browser.open(f"http://localhost:{port}/")
            for text in (INJECTION, "opacity"):
                browser.until(f"document.body.innerText.includes({json.dumps(text)})")
            assert browser.evaluate(
                "window.hacked === undefined && !document.querySelector('iframe')"
            )
            wait_until(
                lambda: any(client_state.at_rest for client_state in list(view.clients.values()))
            )
            [client] = view.server.get_clients().values()
            start = (
                view.server.initial_camera.position
            )  # a page has a camera of its own until it hears of ours
            wait_until(lambda: math.dist(client.camera.position, start) < 0.01)
            positions.append(tuple(client.camera.position))
            browser.drag((200, 300), (350, 300))
            wait_until(lambda: math.dist(client.camera.position, positions[0]) > 0.3)
            positions.append(tuple(client.camera.position))
            browser.press("Pause")
            browser.until("document.body.innerText.includes('Continue')")
            time.sleep(0.5)
            steps.append(trainer.step)
            time.sleep(1)
            steps.append(trainer.step)
            browser.press("Continue")
            wait_until(lambda: trainer.step > steps[-1])
            browser.press("Stop and save")
        except BaseException as error:
            failed.append(error)
            trainer.interrupt.requested = True

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        with view:
            assert trainer.train(10**6, 0, view.after_step) is False
            driver.join(60)
    finally:
        browser.close()
    if failed:
        raise failed[0]
    assert np.linalg.norm(positions[0]) == pytest.approx(
        np.linalg.norm(positions[1]), rel=1e-3
    )  # round the middle
    assert steps[0] == steps[1] > 3

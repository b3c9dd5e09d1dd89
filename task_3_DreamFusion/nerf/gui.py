"""A live view of the training in the browser, by viser: the mouse moves a camera around the field.

    with LiveView(8080, "a hamburger") as view:
        trainer.train(after_step=view.after_step)

The training renders the images itself, between two steps. Their number and size are limited so that
most of the time is left for training.
"""

import contextlib
import html
import io
import math
import socket
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from course.errors import CourseError, CourseWarning
from task_3_DreamFusion.nerf.export import as_bytes
from task_3_DreamFusion.nerf.provider import Cameras, orbit
from task_3_DreamFusion.nerf.renderer import SHADING_MODES, Shading
from task_3_DreamFusion.nerf.utils import Trainer

HOST = "127.0.0.1"  # not reachable from other machines, except through a tunnel
MIN_HEIGHT, MAX_HEIGHT = 24, 512  # of an image, in pixels
MOVING_SECONDS, STILL_SECONDS = 0.1, 0.4  # to render an image while the camera moves or rests
# A resting camera gets a new image after this many times the last one's seconds.
REST_FACTOR = 4
PANEL_SECONDS = 0.2  # between updates of the panel


class GuiError(CourseError):
    """The page cannot be shown; the message says why and what to do."""


def camera_at(position: np.ndarray, look_at: np.ndarray, fov: float) -> Cameras:
    """Return one upright camera at a position.

    position, look_at: (3,). fov: vertical, in radians as in viser.
    """
    offset = np.asarray(position, np.float64) - np.asarray(look_at, np.float64)
    radius = max(float(np.linalg.norm(offset)), 1e-6)
    elevation = math.degrees(math.asin(float(np.clip(offset[1] / radius, -1, 1))))
    azimuth = math.degrees(math.atan2(offset[0], offset[2]))
    values = azimuth, elevation, radius, math.degrees(fov), look_at
    return Cameras(*(torch.tensor(np.array([v]), dtype=torch.float32) for v in values))


def next_height(height: int, seconds: float, allowed: float) -> int:
    """Return the height at which an image takes the allowed seconds, from the last one.

    At most twice, at least half of `height`.
    """
    factor = min(max(math.sqrt(allowed / max(seconds, 1e-6)), 0.5), 2.0)
    return round(min(max(height * factor, MIN_HEIGHT), MAX_HEIGHT))


def panel(title: str, line: str, terms: Mapping[str, float]) -> str:
    """Return the text of the panel as HTML: a title, a line, and a table; all of it escaped."""
    row = "<tr><td>{}</td><td>{:.3g}</td></tr>"
    rows = "".join(row.format(html.escape(name), value) for name, value in terms.items())
    return (
        '<div style="padding: 0 0.75em 0.75em; overflow-wrap: anywhere">'
        f"<p><b>{html.escape(title)}</b></p><p>{html.escape(line)}</p><table>{rows}</table></div>"
    )


@dataclass
class ClientState:
    """The last image of an open page."""

    height: int = 64  # of the next image
    seconds: float = 0.0  # that the last one took
    rendered_at: float = -math.inf
    camera_time: float = -1.0  # the camera's time stamp in it
    at_rest: bool = False  # whether the camera was

    def is_due(self, moved: bool, changed: bool) -> bool:
        """Return whether to render an image.

        moved: the camera, which gets one at once. changed: the field, which waits a while.
        """
        if moved:
            return True
        is_stale = changed or not self.at_rest
        return is_stale and time.monotonic() - self.rendered_at >= REST_FACTOR * self.seconds

    def record(self, seconds: float, camera_time: float, at_rest: bool) -> None:
        """Note that an image has been rendered."""
        allowed = STILL_SECONDS if at_rest else MOVING_SECONDS
        self.height = next_height(self.height, seconds, allowed)
        self.seconds = seconds
        self.rendered_at = time.monotonic()
        self.camera_time = camera_time
        self.at_rest = at_rest


class LiveView:
    """The page: an image that follows the mouse, and a panel with the step, the losses and buttons.

    port: of http://localhost:PORT. title: the prompt. Raises GuiError without viser, or if the port
    is in use.
    """

    def __init__(self, port: int, title: str) -> None:
        _check_port(port)
        try:
            from task_3_DreamFusion.nerf import gui_server

            self.inputs = gui_server.Inputs()
            self.server = gui_server.start(HOST, port, self.inputs)
        except ImportError as error:
            raise GuiError(f"--gui needs viser 1.1 ({error}): pip install 'viser<1.2'") from error
        if self.server.get_port() != port:  # another program has taken it since the check
            self.server.stop()
            raise GuiError(_in_use(port))
        self.server.scene.set_up_direction("+y")
        camera, start = self.server.initial_camera, orbit(1, fill=0.6)
        camera.position = start.poses()[0, :3, 3].numpy()
        camera.fov = math.radians(start.fov.item())
        camera.look_at = (0.0, 0.0, 0.0)
        self.paused, self.stopped = threading.Event(), threading.Event()
        self.clients: dict[int, ClientState] = {}
        self._panel_time, self._step = -math.inf, -1
        self.has_failed = False
        self._build(title)
        print(f"live view: http://localhost:{port}", flush=True)

    def _build(self, title: str) -> None:
        gui = self.server.gui
        gui.configure_theme(show_share_button=False, show_logo=False)
        self.text = gui.add_html(panel(title, "The model is being loaded ...", {}))
        self.progress: Any = gui.add_progress_bar(0.0)
        self.title = title
        self.shading = gui.add_dropdown("shading", SHADING_MODES, hint="albedo: without light")
        self.pause = gui.add_button("Pause")
        self.stop = gui.add_button("Stop and save", color="red")
        self.inputs.allow(self.shading, SHADING_MODES)
        for button in (self.pause, self.stop):
            self.inputs.allow(button, (True,))

        @self.pause.on_click
        def _(_: Any) -> None:
            if self.paused.is_set():
                self.paused.clear()
                self.pause.label = "Pause"
            else:
                self.paused.set()
                self.pause.label = "Continue"

        @self.stop.on_click
        def _(_: Any) -> None:
            self.stopped.set()
            self.paused.clear()

        @self.shading.on_update
        def _(_: Any) -> None:
            for client in list(self.clients.values()):
                client.camera_time = -1.0

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()

    # --- Between two steps

    def after_step(self, trainer: Trainer, terms: dict[str, float]) -> None:
        """Update the panel and the images that are due, and wait while the page is paused.

        An error of the view is reported and turns it off: it never reaches the training.
        """
        self._try(lambda: self._update_panel(trainer, terms))
        self._try(lambda: self._update_images(trainer))
        while self.paused.is_set() and not trainer.interrupt.requested:
            self._try(lambda: self._update_images(trainer))
            time.sleep(0.02)
        if self.stopped.is_set():
            trainer.interrupt.requested = True

    def _try(self, action: Callable[[], None]) -> None:
        if self.has_failed:
            return
        try:
            action()
        except Exception as error:
            self.has_failed = True
            reason = f"{type(error).__name__}: {error}"
            message = f"The live view is off after an error; the training continues ({reason})."
            warnings.warn(message, CourseWarning, stacklevel=2)

    def _update_panel(self, trainer: Trainer, terms: dict[str, float]) -> None:
        now = time.monotonic()
        is_last = trainer.step >= trainer.settings.iters
        if now - self._panel_time < PANEL_SECONDS and not is_last:
            return
        self._panel_time = now
        line = f"step {trainer.step} of {trainer.settings.iters}"
        self.text.content = panel(self.title, line, terms)
        self.progress.value = 100 * trainer.progress

    def _update_images(self, trainer: Trainer) -> None:
        """Render an image for every page that is due one."""
        changed = trainer.step != self._step
        self._step = trainer.step
        clients = self.server.get_clients()
        self.clients = {number: self.clients.get(number) or ClientState() for number in clients}
        for number, client in clients.items():
            state, camera = self.clients[number], client.camera
            moved = camera.update_timestamp != state.camera_time
            if not state.is_due(moved, changed):
                continue
            start = time.monotonic()
            image = self.render(trainer, camera, state.height)
            state.record(time.monotonic() - start, camera.update_timestamp, at_rest=not moved)
            client.scene.set_background_image(image, format="jpeg", jpeg_quality=90)

    def render(self, trainer: Trainer, camera: Any, height: int) -> np.ndarray:
        """Render the averaged field for a viser camera, with a light at the camera.

        Returns (height, W, 3) uint8.
        """
        cameras = camera_at(camera.position, camera.look_at, camera.fov)
        width = round(min(max(height * camera.aspect, 1), 2 * MAX_HEIGHT))
        shading = Shading(self.shading.value, lights=cameras.poses()[:, :3, 3])
        with trainer.averaged():
            [image] = trainer.renderer.render_eval(cameras, height, width, shading)
        return as_bytes(image[:3])


def _check_port(port: int) -> None:
    """Raise GuiError if the port cannot be used; viser would take the next one instead."""
    with socket.socket() as probe:
        # Connections that have ended do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            message = f"--gui_port {port} is not allowed here: choose one above 1024"
            raise GuiError(message) from error
        except OSError as error:
            raise GuiError(_in_use(port)) from error


def _in_use(port: int) -> str:
    return f"--gui_port {port} is used by another program: choose another one, such as {port + 1}"

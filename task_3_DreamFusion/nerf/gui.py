"""A live view of the training in the browser, by viser: the camera under the mouse looks at the field between steps.

    with LiveView(8080, "a hamburger") as view:
        trainer.train(after_step=view.after_step)

Images are made by the training itself, between two steps, and only as many and as large as leave it most of the time.
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
from typing import Any

import numpy as np
import torch

from course.errors import CourseError, CourseWarning
from task_3_DreamFusion.nerf.export import as_bytes
from task_3_DreamFusion.nerf.provider import Cameras, camera_distance
from task_3_DreamFusion.nerf.renderer import SHADING_MODES, Shading
from task_3_DreamFusion.nerf.utils import Trainer

HOST = "127.0.0.1"  # this machine alone; from another one through a tunnel
LEAST, MOST = 24, 512  # height of an image in pixels
MOVING, STILL = (
    0.1,
    0.4,
)  # seconds that an image may take while the camera moves, and while it rests
REST = 4  # a resting camera gets a new image after so many times what the last one took: a fifth of the time at most
TEXTS = 0.2  # seconds between new figures in the panel


class GuiError(CourseError):
    """The page cannot be shown; the message says why and what to do."""


def camera_at(position: np.ndarray, look_at: np.ndarray, fov: float) -> Cameras:
    """One camera at a place of the world that looks at another, upright.

    position, look_at: (3,). fov: from the lower to the upper edge, in radians, as viser has it.
    """
    away = np.asarray(position, np.float64) - np.asarray(look_at, np.float64)
    radius = max(float(np.linalg.norm(away)), 1e-6)
    elevation = math.degrees(math.asin(float(np.clip(away[1] / radius, -1, 1))))
    azimuth = math.degrees(math.atan2(away[0], away[2]))
    numbers = torch.tensor([azimuth, elevation, radius, math.degrees(fov)], dtype=torch.float32)
    target = torch.as_tensor(np.asarray(look_at), dtype=torch.float32)[None]
    return Cameras(numbers[0:1], numbers[1:2], numbers[2:3], numbers[3:4], target)


def next_height(height: int, seconds: float, wanted: float) -> int:
    """How high the next image is, if one of `height` took `seconds` and it may take `wanted`; at most twice or half
    as high."""
    factor = min(max(math.sqrt(wanted / max(seconds, 1e-6)), 0.5), 2.0)
    return round(min(max(height * factor, LEAST), MOST))


def panel(title: str, line: str, terms: Mapping[str, float]) -> str:
    """Return the text of the panel as HTML: a title, a line, and a table; all of it escaped."""
    row = "<tr><td>{}</td><td>{:.3g}</td></tr>"
    rows = "".join(row.format(html.escape(name), value) for name, value in terms.items())
    return (
        '<div style="padding: 0 0.75em 0.75em; overflow-wrap: anywhere">'
        f"<p><b>{html.escape(title)}</b></p><p>{html.escape(line)}</p><table>{rows}</table></div>"
    )


class Visitor:
    """What one open page has been shown. height: of its next image. took: seconds of its last one. at: when that
    was. seen: the camera's time stamp then. fine: whether it was one for a camera at rest."""

    def __init__(self) -> None:
        self.height, self.took, self.at, self.seen, self.fine = 64, 0.0, -math.inf, -1.0, False

    def is_due(self, moved: bool, changed: bool) -> bool:
        """Whether it is time for an image: at once for a camera that moved, else if there is something new to see and
        the last image has been paid for."""
        if moved:
            return True
        return (changed or not self.fine) and time.monotonic() - self.at >= REST * self.took

    def shown(self, took: float, camera_time: float, fine: bool) -> None:
        self.height = next_height(self.height, took, STILL if fine else MOVING)
        self.took, self.at, self.seen, self.fine = took, time.monotonic(), camera_time, fine


class LiveView:
    """The page: an image that follows the mouse, and a panel with the step, the terms of the loss and buttons.

    port: of http://localhost:PORT. title: what is made. Raises GuiError without viser, and where the port is taken.
    """

    def __init__(self, port: int, title: str) -> None:
        _check_port(port)
        try:
            from task_3_DreamFusion.nerf import gui_server

            self.inputs = gui_server.Inputs()
            self.server = gui_server.start(HOST, port, self.inputs)
        except ImportError as error:
            raise GuiError(f"--gui needs viser 1.1 ({error}): pip install 'viser<1.2'") from error
        if self.server.get_port() != port:  # taken since the check
            self.server.stop()
            raise GuiError(_taken(port))
        self.server.scene.set_up_direction("+y")
        camera = self.server.initial_camera
        camera.fov = math.radians(40)
        radius = camera_distance(torch.tensor(40.0), torch.tensor(0.6)).item()
        camera.position = (
            0.0,
            radius * math.sin(math.radians(15)),
            radius * math.cos(math.radians(15)),
        )
        camera.look_at = (0.0, 0.0, 0.0)
        self.paused, self.stopped = threading.Event(), threading.Event()
        self.visitors: dict[int, Visitor] = {}
        self._last_text, self._step = -math.inf, -1
        self.has_failed = False
        self._build(title)
        print(f"live view: http://localhost:{port}", flush=True)

    def _build(self, title: str) -> None:
        gui = self.server.gui
        gui.configure_theme(show_share_button=False, show_logo=False)
        self.text = gui.add_html(panel(title, "The model is being loaded ...", {}))
        self.progress: Any = gui.add_progress_bar(0.0)
        self.title = title
        self.look = gui.add_dropdown("look", SHADING_MODES, hint="albedo: without light")
        self.pause = gui.add_button("Pause")
        self.stop = gui.add_button("Stop and save", color="red")
        self.inputs.allow(self.look, SHADING_MODES)
        for button in (self.pause, self.stop):
            self.inputs.allow(button, (True,))

        @self.pause.on_click
        def _(_: Any) -> None:
            (self.paused.clear if self.paused.is_set() else self.paused.set)()
            self.pause.label = "Go on" if self.paused.is_set() else "Pause"

        @self.stop.on_click
        def _(_: Any) -> None:
            self.stopped.set()
            self.paused.clear()

        @self.look.on_update
        def _(_: Any) -> None:
            for visitor in list(self.visitors.values()):
                visitor.seen = -1.0

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()

    # --- Between two steps

    def after_step(self, trainer: Trainer, terms: dict[str, float]) -> None:
        """Show the figures and images that are due, and wait while the page is paused.

        An error of the view is reported and turns it off: it never reaches the training.
        """
        self._try(lambda: self._write(trainer, terms))
        self._try(lambda: self._show(trainer))
        while self.paused.is_set() and not trainer.interrupt.requested:
            self._try(lambda: self._show(trainer))
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
            warnings.warn(
                f"The live view is off after an error, the training goes on ({reason}).",
                CourseWarning,
                stacklevel=2,
            )

    def _write(self, trainer: Trainer, terms: dict[str, float]) -> None:
        now, last = time.monotonic(), trainer.step >= trainer.settings.iters
        if now - self._last_text < TEXTS and not last:
            return
        self._last_text = now
        line = f"step {trainer.step} of {trainer.settings.iters}"
        self.text.content = panel(self.title, line, terms)
        self.progress.value = 100 * trainer.progress

    def _show(self, trainer: Trainer) -> None:
        """An image for every page that is due one."""
        changed, self._step = trainer.step != self._step, trainer.step
        clients = self.server.get_clients()
        self.visitors = {number: self.visitors.get(number) or Visitor() for number in clients}
        for number, client in clients.items():
            visitor, camera = self.visitors[number], client.camera
            moved = camera.update_timestamp != visitor.seen
            if not visitor.is_due(moved, changed):
                continue
            began = time.monotonic()
            image = self.image(trainer, camera, visitor.height)
            visitor.shown(time.monotonic() - began, camera.update_timestamp, fine=not moved)
            client.scene.set_background_image(image, format="jpeg", jpeg_quality=90)

    def image(self, trainer: Trainer, camera: Any, height: int) -> np.ndarray:
        """The averaged field (height, W, 3) uint8 as a viser camera sees it; a light stands where the camera is."""
        one = camera_at(camera.position, camera.look_at, camera.fov)
        width = round(min(max(height * camera.aspect, 1), 2 * MOST))
        look = self.look.value
        shading = (
            Shading(look, one.poses()[:, :3, 3])
            if look in ("lambertian", "textureless")
            else Shading(look)
        )
        with trainer.averaged():
            [seen] = trainer.renderer.render_eval(one, height, width, shading)
        return as_bytes(seen[:3])


def _check_port(port: int) -> None:
    """Raises GuiError if the port cannot be had: viser would take the next one, and say so in passing."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # not to be stopped by connections that have ended
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise GuiError(
                f"--gui_port {port} is not allowed here: choose one above 1024"
            ) from error
        except OSError as error:
            raise GuiError(_taken(port)) from error


def _taken(port: int) -> str:
    return (
        f"--gui_port {port} is taken by another program: choose another number, such as {port + 1}"
    )

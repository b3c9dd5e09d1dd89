"""The live view: the page is there, its camera is ours, training goes on beside it, and its buttons work."""

import math
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from course.models import find_model
from task_3_DreamFusion.nerf import gui
from task_3_DreamFusion.nerf.gui import GuiError, LiveView, Visitor, camera_at, next_height
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.results import as_bytes
from task_3_DreamFusion.nerf.sd import StableDiffusion
from task_3_DreamFusion.nerf.utils import Settings, Trainer
from tests.task_3.browser import Browser


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((gui.HOST, 0))
        return probe.getsockname()[1]


@pytest.fixture
def trainer(tiny_folder, tmp_path) -> Trainer:
    settings = Settings("a car", iters=10**6, batch=1, size=8, reuse=1, rays=64, steps=24, cells=16)
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
        position=pose[:3, 3].double().numpy(), look_at=np.zeros(3), fov=math.radians(40), aspect=aspect,
        update_timestamp=at,
    )  # fmt: skip


def test_the_page_is_served_here_and_gone_afterwards(port, capsys):
    address = f"http://localhost:{port}"
    with LiveView(port, "a car"):
        assert capsys.readouterr().out == f"live view: {address}\n"
        page = urllib.request.urlopen(address, timeout=20)
        assert page.status == 200 and b"<html" in page.read()
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=5)


def test_a_port_that_is_taken(port):
    with socket.socket() as other:
        other.bind((gui.HOST, port))
        other.listen()
        with pytest.raises(GuiError, match=f"--gui_port {port} is taken.*such as {port + 1}"):
            LiveView(port, "a car")


def test_without_viser(port, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(GuiError, match="pip install viser"):
        LiveView(port, "a car")


@pytest.mark.parametrize("elevation", [-40.0, 0.0, 15.0, 80.0])
def test_its_camera_is_ours(elevation):
    for start in (0.0, 100.0, -170.0):
        ours = orbit(1, elevation, start=start)
        shifted = torch.tensor([0.1, -0.2, 0.3])
        found = camera_at((ours.poses()[0, :3, 3] + shifted).numpy(), shifted.numpy(), math.radians(40))
        pose = ours.poses()
        pose[0, :3, 3] += shifted
        torch.testing.assert_close(found.poses(), pose, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.fov, ours.fov)


def test_a_camera_straight_above_and_one_at_its_target_are_cameras():
    for position in ((0, 3, 0), (0, -3, 0), (0, 0, 0)):
        assert torch.isfinite(camera_at(np.array(position), np.zeros(3), 0.7).poses()).all()


def test_the_picture_is_the_averaged_field_from_there(port, trainer):
    trainer.train_step()
    with LiveView(port, "a car") as view:
        found = view.picture(trainer, seen_from(), 12)
        expected = trainer.pictures(orbit(1), 12)[0]
        assert np.abs(found.astype(int) - as_bytes(expected[:3])).max() <= 1
        for look in view.look.options:
            view.look.value = look
            assert view.picture(trainer, seen_from(aspect=1.5), 12).shape == (12, 18, 3)


def test_pictures_are_as_large_as_time_allows():
    assert next_height(100, 0.1, 0.1) == 100 and next_height(100, 0.4, 0.1) == 50 and next_height(100, 0.05, 0.1) == 141
    assert next_height(100, 1e-9, 0.1) == 200 and next_height(30, 9.0, 0.1) == gui.LEAST
    assert next_height(500, 1e-9, 0.1) == gui.MOST


def test_training_keeps_most_of_the_time(monkeypatch):
    """Steps of 0.1 s, pictures of 0.2 s: for a camera at rest, a fifth of the time goes into pictures at most."""
    now = [100.0]
    monkeypatch.setattr(gui.time, "monotonic", lambda: now[0])
    visitor, drawing = Visitor(), 0.0
    for _ in range(1000):
        now[0] += 0.1
        if visitor.is_due(moved=False, changed=True):
            now[0] += 0.2
            drawing += 0.2
            visitor.shown(0.2, 1.0, fine=True)
    assert 0.15 < drawing / (now[0] - 100) <= 0.2 + 0.01
    assert not visitor.is_due(moved=False, changed=True) and visitor.is_due(moved=True, changed=False)
    now[0] += 10
    assert not visitor.is_due(moved=False, changed=False)  # nothing new to see


def test_stop_ends_the_run_with_a_checkpoint(port, trainer):
    with LiveView(port, "a car") as view:
        after = lambda terms: (view.stopped.set() if trainer.step == 3 else None, view.after_step(trainer, terms))
        assert trainer.train(preview_every=0, after_step=after) is False
        assert re.search(r"step [1-3] of 1000000", view.text.content) and "opacity" in view.text.content
    assert (trainer.checkpoints / "000003").exists()


def test_a_paused_training_waits_and_ctrl_c_ends_that(port, trainer):
    with LiveView(port, "a car") as view:
        view.paused.set()
        waits = threading.Thread(target=view.after_step, args=(trainer, {"error": 1.0}))
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
        trainer.interrupt.asked = True
        waits.join(5)
        assert not waits.is_alive()


@pytest.mark.slow
def test_a_browser_sees_the_training_and_its_mouse_moves_the_camera(port, trainer, tmp_path):
    browser, view = Browser(tmp_path / "profile"), LiveView(port, "a car")
    positions, steps, failed = [], [], []

    def drive() -> None:
        try:
            browser.open(f"http://localhost:{port}/")
            browser.until("document.body.innerText.includes('a car') && document.body.innerText.includes('opacity')")
            wait_until(lambda: any(visitor.fine for visitor in list(view.visitors.values())))
            [client] = view.server.get_clients().values()
            start = view.server.initial_camera.position  # a page has a camera of its own until it hears of ours
            wait_until(lambda: math.dist(client.camera.position, start) < 0.01)
            positions.append(tuple(client.camera.position))
            browser.drag((200, 300), (350, 300))
            wait_until(lambda: math.dist(client.camera.position, positions[0]) > 0.3)
            positions.append(tuple(client.camera.position))
            browser.press("Pause")
            browser.until("document.body.innerText.includes('Go on')")
            time.sleep(0.5)
            steps.append(trainer.step)
            time.sleep(1)
            steps.append(trainer.step)
            browser.press("Go on")
            wait_until(lambda: trainer.step > steps[-1])
            browser.press("Stop and save")
        except BaseException as error:
            failed.append(error)
            trainer.interrupt.asked = True

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        with view:
            assert trainer.train(10**6, 0, lambda terms: view.after_step(trainer, terms)) is False
            driver.join(60)
    finally:
        browser.close()
    if failed:
        raise failed[0]
    assert np.linalg.norm(positions[0]) == pytest.approx(np.linalg.norm(positions[1]), rel=1e-3)  # round the middle
    assert steps[0] == steps[1] > 3

"""A headless Chromium for tests of pages, driven through its debugging port."""

import base64
import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
OPTIONS = (
    "--headless --no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
)
PATIENCE = 90  # seconds


class Browser:
    """One page of 900 x 600 pixels. Skips the test, loudly, where there is no Chromium."""

    def __init__(self, profile: Path) -> None:
        if CHROMIUM is None:
            warnings.warn("NO CHROMIUM: pages were tested without a browser", stacklevel=2)
            pytest.skip("NO CHROMIUM")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        options = (
            f"--window-size=900,600 --remote-allow-origins=* --remote-debugging-port={self.port}"
        )
        command = [
            CHROMIUM,
            *OPTIONS.split(),
            *options.split(),
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.count = 0

    def open(self, address: str) -> None:
        import websocket

        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                tabs = json.load(
                    urllib.request.urlopen(f"http://localhost:{self.port}/json", timeout=5)
                )
                page = next(tab for tab in tabs if tab["type"] == "page")
                break
            except (OSError, ValueError, StopIteration):
                assert time.monotonic() < deadline
                time.sleep(0.2)
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=PATIENCE)
        self.call("Page.navigate", url=address)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def call(self, method: str, **parameters: object) -> dict:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.count:
                return answer["result"]

    def evaluate(self, code: str) -> object:
        return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get(
            "value"
        )

    def until(self, code: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(code):
            assert time.monotonic() < deadline, code
            time.sleep(0.2)

    def press(self, button: str) -> None:
        buttons = "[...document.querySelectorAll('button')]"
        element = f"{buttons}.find(b => b.textContent.includes('{button}'))"
        self.until(f"!!{element}")
        self.evaluate(f"{element}.click()")

    def drag(self, begin: tuple[int, int], end: tuple[int, int], moves: int = 15) -> None:
        def mouse(kind: str, share: float) -> None:
            x, y = (a + share * (b - a) for a, b in zip(begin, end, strict=True))
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                buttons=1,
                clickCount=1,
            )

        mouse("mousePressed", 0)
        for i in range(1, moves + 1):
            mouse("mouseMoved", i / moves)
        mouse("mouseReleased", 1)

    def image(self) -> np.ndarray:
        """What the page looks like: (H, W, 3) uint8."""
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

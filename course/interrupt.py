"""Stop a long run after the current step, so that it can save.

with Interrupt() as interrupt:
    while step < steps and not interrupt.requested:
        step += 1
"""

import os
import signal
from types import FrameType

from tqdm import tqdm

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupt:
    """Set `requested` on a first Ctrl-C, SIGTERM or SIGHUP; a second Ctrl-C or SIGTERM ends it all.

    A signal that the process ignores stays ignored, as nohup wants it for SIGHUP.

    Args:
        message: printed on the first signal; empty for none.
    """

    def __init__(self, message: str = "stopping after this step ...") -> None:
        self.requested = False
        self.message = message

    def __enter__(self) -> "Interrupt":
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        ignored = (signal.SIG_IGN, None)
        self._handlers = {n: handler for n, handler in handlers.items() if handler not in ignored}
        for number in self._handlers:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.requested = True
        self._restore()
        if number == getattr(signal, "SIGHUP", None):
            signal.signal(number, signal.SIG_IGN)  # a shell that ends sends another one
        for stream in self._terminals:
            if not os.isatty(stream):  # the terminal is gone: writing to it would be an error
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        if self.message:
            tqdm.write(self.message)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

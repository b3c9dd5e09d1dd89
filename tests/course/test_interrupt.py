"""A first signal requests a stop, a second one ends the process, ignored signals stay ignored."""

import os
import signal
from collections.abc import Iterator

import pytest

from course.interrupt import SIGNALS, Interrupt


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """A process in the background may have started with SIGINT ignored."""
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        is_interrupt = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_requests_a_stop_and_the_handlers_return(default_handlers, capsys, number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with Interrupt("stopping soon") as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        assert interrupt.requested and "stopping soon" in capsys.readouterr().out
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_ctrl_c_ends_at_once(default_handlers, capsys):
    with pytest.raises(KeyboardInterrupt), Interrupt("") as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_more_hang_ups_do_no_harm(default_handlers):
    with Interrupt() as interrupt:
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
    assert interrupt.requested


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_stays_ignored(default_handlers, number):
    signal.signal(number, signal.SIG_IGN)
    with Interrupt() as interrupt:
        signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    assert not interrupt.requested and signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_terminal_is_replaced_by_the_null_device(default_handlers, stream):
    keeper, terminal = os.openpty()
    saved = os.dup(stream)
    os.dup2(terminal, stream)
    try:
        with Interrupt() as interrupt:
            os.close(keeper)
            with pytest.raises(OSError):
                os.write(stream, b"x")
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.requested and os.write(stream, b"x") == 1
    finally:
        os.dup2(saved, stream)
        os.close(saved)
        os.close(terminal)

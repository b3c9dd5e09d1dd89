"""Attacks on the sandbox: none reaches anything, none outlives its run."""

import os
import socket
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from grading import pipe, sandbox
from grading.sandbox import Limits, Outcome

reason = sandbox.reason_against()
needs_sandbox = pytest.mark.skipif(bool(reason), reason=reason)
ROOT = Path(__file__).resolve().parents[2]


def run(code: str, readable: list[Path] = [], **limits: float) -> Outcome:  # noqa: B006
    return sandbox.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        readable,
        limits=Limits(**({"seconds": 60.0} | limits)),  # type: ignore[arg-type]
    )


@needs_sandbox
def test_results_come_back_over_their_own_pipe():
    code = """
        import os, sys
        sys.path.insert(0, {root!r})
        import numpy as np
        from grading import pipe
        print("printed")
        pipe.send(int(os.environ["GRADING_RESULTS"]), {{"x": np.arange(5.0)}})
    """
    outcome = run(code.format(root=str(ROOT)), [ROOT / "grading", ROOT / "course"])
    assert outcome.code == 0 and not outcome.stopped, outcome.stderr
    assert outcome.stdout == b"printed\n"
    assert pipe.receive(outcome.results)["x"].tolist() == np.arange(5.0).tolist()


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "limits", "stopped"),
    [
        ("while True: pass", {"seconds": 1}, "time"),
        ("import time; time.sleep(1000)", {"seconds": 1}, "time"),
        # Each child waits: a real fork bomb is stopped as well, but slows the machine for seconds.
        (
            "import os, time\nwhile os.fork(): time.sleep(0.01)\ntime.sleep(99)",
            {"processes": 20},
            "processes",
        ),
        (
            "import threading, time\nfor _ in range(3): threading.Thread(target=time.sleep, "
            "args=(999,)).start()",
            {"seconds": 1},
            "time",
        ),
        ("a = []\nwhile True: a.append(bytearray(30_000_000))", {"memory": 400 << 20}, "memory"),
        ("while True: print('x' * 1000)", {"output": 10_000}, "stdout"),
        (
            "import sys\nwhile True: sys.stderr.write('x' * 1000)",
            {"output": 10_000},
            "stderr",
        ),
        (
            "import os\nwhile True: os.write(int(os.environ['GRADING_RESULTS']), b'x' * 1000)",
            {"results": 10_000},
            "results",
        ),
        (
            "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
            "    except (OSError, ValueError): pass\nwhile True: pass",
            {"seconds": 1},
            "time",
        ),
    ],
)
def test_a_limit_stops_a_process_and_is_named(code, limits, stopped):
    outcome = run(code, **limits)
    assert outcome.stopped == stopped
    assert outcome.code != 0
    assert len(outcome.stdout) <= 1 << 20 and len(outcome.stderr) <= 1 << 20


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("open('/tmp/x', 'wb').write(bytes(30_000_000))", b"No space left"),
        ("open('/dev/shm/x', 'wb').write(bytes(100_000_000))", b"No space left"),
        ("open('/x', 'w')", b"Read-only file system"),
        ("open('/dev/x', 'w')", b"Read-only file system"),
        ("open('/usr/x', 'w')", b"Read-only file system"),
        ("import sys; open(sys.prefix + '/x', 'w')", b"Read-only file system"),
        ("open('/etc/passwd')", b"No such file"),
        ("open('/etc/shadow')", b"No such file"),
        ("import os; os.setuid(0)", b"Operation not permitted|Invalid argument"),
        ("import os; os.chroot('/tmp')", b"Operation not permitted"),
        ("import socket; socket.getaddrinfo('localhost.invalid', 80)", b"gaierror"),
        (
            "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
            "if libc.unshare(0x10000000): raise OSError(ctypes.get_errno(), 'unshare')",
            b"] unshare",
        ),
        (
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
            "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None): "
            "raise OSError(ctypes.get_errno(), 'mount')",
            b"] mount",
        ),
    ],
)
def test_what_is_not_allowed_fails_inside(code, error):
    outcome = run(code, disk=20 << 20)
    assert not outcome.stopped
    assert outcome.code != 0
    assert any(part in outcome.stderr for part in error.split(b"|")), outcome.stderr


@needs_sandbox
def test_nothing_of_the_grader_is_visible(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADER_SECRET", "hidden")
    secret = tmp_path / "hidden_checks.py"
    secret.write_text("secret")
    code = f"""
        import os
        print(sorted(os.environ))
        print(len([p for p in os.listdir('/proc') if p.isdigit()]))
        print(os.path.exists({str(secret)!r}), os.path.exists({str(ROOT / "tests")!r}))
    """
    outcome = run(code)
    assert outcome.code == 0, outcome.stderr
    lines = outcome.stdout.decode().splitlines()
    assert "GRADER_SECRET" not in lines[0]
    assert int(lines[1]) <= 3
    assert lines[2] == "False False"


@needs_sandbox
@pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix", "abstract"])
def test_a_server_of_the_machine_cannot_be_reached(family, tmp_path):
    kind = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}.get(family, socket.AF_UNIX)
    address = {
        "ipv4": ("127.0.0.1", 0),
        "ipv6": ("::1", 0),
        "unix": str(tmp_path / "socket"),
        "abstract": f"\0grading-{os.getpid()}",
    }[family]
    with socket.socket(kind) as server:
        try:
            server.bind(address)
        except OSError:
            pytest.skip(f"no {family} on this machine")
        server.listen()
        target = server.getsockname()
        code = f"import socket; socket.socket({int(kind)}).connect({target!r}); print('in')"
        outcome = run(code)
    assert outcome.code != 0 and b"in" not in outcome.stdout


@needs_sandbox
@pytest.mark.parametrize("how", ["background", "session", "double fork"])
def test_no_process_outlives_the_run(how):
    mark = f"{time.time_ns()}"
    sleep = f"[sys.executable, '-c', 'import time; time.sleep(600)  # {mark}']"
    code = {
        "background": f"import subprocess, sys; subprocess.Popen({sleep})",
        "session": f"import subprocess, sys; subprocess.Popen({sleep}, start_new_session=True)",
        "double fork": f"import os, subprocess, sys\nif not os.fork():\n    os.setsid()\n"
        f"    if not os.fork(): subprocess.run({sleep})",
    }[how]
    outcome = run(code, seconds=30)
    assert outcome.code == 0, outcome.stderr
    for process in psutil.process_iter(["cmdline"]):
        assert not any(mark in part for part in process.info["cmdline"] or [])


@needs_sandbox
def test_sums_are_repeatable():
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['ATEN_CPU_CAPABILITY'])"
    assert run(code).stdout == b"1 default\n"


@pytest.mark.parametrize(
    ("program", "advice"),
    [
        (None, "apt install bubblewrap"),
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", "apparmor_restrict"),
        ("sleep 0; exit 3", "does not run"),
        ("echo 'Unknown option --disable-userns' >&2; exit 1", "Unknown option --disable-userns"),
    ],
)
def test_without_a_sandbox_the_reason_and_the_remedy_are_named(
    program, advice, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    if program:
        (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "bwrap").chmod(0o755)
    with pytest.raises(sandbox.SandboxError, match=advice):
        sandbox.run(["true"])

"""Attacks on the sandbox: none reaches anything, none outlives its run."""

import os
import shutil
import socket
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from grading import lockdown, pipe, sandbox
from grading.sandbox import Limits, Outcome, container, landlock
from grading.sandbox.limits import Job

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Outcome]


@pytest.fixture(params=sandbox.SANDBOXES)
def run(request) -> Run:
    """Return a function that runs Python code in each sandbox that works here."""
    name = request.param
    if reason := sandbox.reason_against(name):
        pytest.skip(reason)

    def run(code: str, readable: list[Path] = [], **limits: float) -> Outcome:  # noqa: B006
        return sandbox.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            readable,
            limits=Limits(**({"seconds": 60.0} | limits)),  # type: ignore[arg-type]
            data=bytes(200_000),
            name=name,
        )

    return run


def test_results_come_back_over_their_own_pipe(run):
    code = """
        import os, sys
        sys.path.insert(0, {root!r})
        import numpy as np
        from grading import pipe
        print(len(sys.stdin.buffer.read()))
        pipe.send(int(os.environ["GRADING_RESULTS"]), {{"x": np.arange(5.0)}})
    """
    outcome = run(code.format(root=str(ROOT)), [ROOT])
    assert outcome.code == 0 and not outcome.stopped, outcome.stderr
    assert outcome.stdout == b"200000\n"
    assert pipe.receive(outcome.results)["x"].tolist() == np.arange(5.0).tolist()


def test_no_fork_handler_runs_in_the_grader(run):
    forks: list[int] = []
    os.register_at_fork(before=lambda: forks.append(1))
    run("pass")
    assert not forks  # OpenBLAS ends its threads in its own, while other threads may wait for them


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
def test_a_limit_stops_a_process_and_is_named(run, code, limits, stopped):
    outcome = run(code, **limits)
    assert outcome.stopped == stopped
    assert outcome.code != 0
    assert len(outcome.stdout) <= 1 << 20 and len(outcome.stderr) <= 1 << 20


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("open('/dev/shm/x', 'wb').write(bytes(100_000_000))", b"No space left|Permission denied"),
        ("open('/x', 'w')", b"Read-only file system|Permission denied"),
        ("open('/dev/x', 'w')", b"Read-only file system|Permission denied"),
        ("open('/usr/x', 'w')", b"Read-only file system|Permission denied"),
        ("import sys; open(sys.prefix + '/x', 'w')", b"Read-only file system|Permission denied"),
        ("open('/etc/passwd')", b"No such file|Permission denied"),
        ("open('/etc/shadow')", b"No such file|Permission denied"),
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
def test_what_is_not_allowed_fails_inside(run, code, error):
    outcome = run(code, disk=20 << 20)
    assert not outcome.stopped
    assert outcome.code != 0
    assert any(part in outcome.stderr for part in error.split(b"|")), outcome.stderr


@pytest.mark.parametrize(
    "code",
    [
        "f = open(f'{folder}/x', 'wb')\nwhile f.write(bytes(100_000)): f.flush()",
        "for n in range(999): open(f'{folder}/{n}', 'wb').write(bytes(1_000_000))",
    ],
)
def test_the_disk_has_a_limit(run, code):
    folder = "import os, time\nfolder = os.environ['TMPDIR']\n"
    outcome = run(folder + code, disk=20 << 20, file_size=25 << 20)
    errors = (b"No space left", b"File too large")
    assert outcome.stopped == "disk" or any(error in outcome.stderr for error in errors)


def test_a_folder_of_any_form_is_removed(run):
    outcome = run(
        """
        import os
        os.chdir(os.environ["TMPDIR"])
        print(os.getcwd(), flush=True)
        os.mkdir("closed", 0)
        for _ in range(3000):
            os.mkdir("x" * 200)
            os.chdir("x" * 200)
        """
    )
    assert outcome.code == 0 or outcome.stopped == "disk"
    folder = outcome.stdout.decode().strip()
    assert folder == "/tmp" or not Path(folder).exists()


def test_nothing_of_the_grader_is_visible(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADER_SECRET", "hidden")
    secret = tmp_path / "hidden_checks.py"
    secret.write_text("secret")
    code = f"""
        import os, sys
        print(sorted(os.environ))
        for path in {[str(secret), str(ROOT / "tests")]!r}:
            try:
                print(os.listdir(path) if os.path.isdir(path) else open(path).read())
            except OSError:
                print("hidden")
        try:
            processes = [p for p in os.listdir('/proc') if p.isdigit()]
        except OSError:
            processes = []
        for process in processes:
            for name in ("environ", "maps"):
                try:
                    text = open(f"/proc/{{process}}/{{name}}").read()
                    print(text, file=sys.stderr)
                    print("read" * bool(text))  # those of the kernel are empty
                except OSError:
                    pass
    """
    outcome = run(code)
    assert outcome.code == 0, outcome.stderr
    lines = outcome.stdout.decode().splitlines()
    assert b"GRADER_SECRET" not in outcome.stdout + outcome.stderr
    assert lines[1:3] == ["hidden"] * 2
    assert lines.count("read") <= 6  # its own process, and the two of bubblewrap


@pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix", "abstract"])
def test_a_server_of_the_machine_cannot_be_reached(run, family, tmp_path):
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


@pytest.mark.parametrize("how", ["background", "session", "double fork"])
def test_no_process_outlives_the_run(run, how):
    mark = f"{time.time_ns()}"
    sleep = f"[sys.executable, '-c', 'import time; time.sleep(600)  # {mark}']"
    code = {
        "background": f"subprocess.Popen({sleep})",
        "session": f"subprocess.Popen({sleep}, start_new_session=True)",
        "double fork": f"if not os.fork():\n    os.setsid()\n"
        f"    if not os.fork(): subprocess.run({sleep})",
    }[how]
    outcome = run(f"import os, subprocess, sys\n{code}", seconds=30)
    assert outcome.code == 0 or b"Operation not permitted" in outcome.stderr, outcome.stderr
    for process in psutil.process_iter(["cmdline"]):
        assert not any(mark in part for part in process.info["cmdline"] or [])


def test_sums_are_repeatable(run):
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['ATEN_CPU_CAPABILITY'])"
    assert run(code).stdout == b"1 default\n"


@pytest.mark.parametrize(
    ("name", "program", "advice"),
    [
        ("bwrap", None, "apt install bubblewrap"),
        ("bwrap", "echo 'setting up uid map: Permission denied' >&2; exit 1", "apparmor_restrict"),
        ("bwrap", "sleep 0; exit 3", "does not run"),
        ("bwrap", "echo 'Unknown option --disable-userns' >&2; exit 1", "option --disable-userns"),
        ("podman", None, "apt install podman"),
        ("podman", "echo 'cannot set up namespace' >&2; exit 125", "set up namespace.*uidmap"),
        ("docker", None, "apt install docker.io"),
        ("docker", "echo 'Cannot connect to the daemon' >&2; exit 1", "daemon.*systemctl start"),
        ("landlock", None, "lsm="),
    ],
)
def test_without_a_sandbox_the_reason_and_the_remedy_are_named(
    name, program, advice, tmp_path, monkeypatch
):
    if prlimit := shutil.which("prlimit"):
        (tmp_path / "prlimit").symlink_to(prlimit)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(lockdown, "abi", lambda: 0)
    sandbox._reasons.cache_clear()
    if program:
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(sandbox.SandboxError, match=advice):
        sandbox.run(["true"])
    sandbox._reasons.cache_clear()


def test_old_landlock_needs_root(monkeypatch):
    monkeypatch.setattr(lockdown, "abi", lambda: 4)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert "Linux 6.12" in landlock.reason_against()


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_container_has_neither_network_nor_rights(name, tmp_path):
    limits = Limits(memory=1 << 30, disk=1 << 20, processes=7)
    job = Job(("python", "-c", "pass"), (tmp_path,), {}, limits, b"")
    line = container.command(name, "box", job, {"A": "b c"})
    for part in (
        *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *("--pids-limit=7", "--memory=1073741824", "--memory-swap=1073741824", "--pull=never"),
        *("/tmp:rw,nosuid,nodev,size=1048576,mode=1777", "--env=A=b c", "--log-driver=none"),
        f"type=bind,source={tmp_path},target={tmp_path},readonly",
    ):
        assert part in line
    assert ("--http-proxy=false" in line) == (name == "podman")
    mounts = [line[n + 1] for n, part in enumerate(line) if part == "--mount"]
    assert all(mount.endswith(",readonly") for mount in mounts)
    assert line[-3:] == ["python", "-c", "pass"]
    with pytest.raises(sandbox.SandboxError, match="comma"):
        container.command(name, "box", Job((), (tmp_path / "a,b",), {}, limits, b""), {})


def test_a_container_sends_results_by_stdout(tmp_path, monkeypatch):
    """A program in docker's place runs the command after the image as docker would."""
    (tmp_path / "docker").write_text(
        """#!/bin/sh
        case "$1" in run) while [ "$1" != "$IMAGE" ]; do
            case "$1" in --env=*) export "${1#--env=}";; esac; shift; done; shift; exec "$@";; esac
        """
    )
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("IMAGE", container.IMAGE)
    code = "import os; print('printed'); os.write(int(os.environ['GRADING_RESULTS']), b'sent')"
    outcome = sandbox.run([sys.executable, "-c", code], name="docker")
    assert (outcome.code, outcome.stopped) == (0, "")
    assert (outcome.stdout, outcome.stderr, outcome.results) == (b"", b"printed\n", b"sent")


def test_unsafe_has_to_be_named(monkeypatch):
    code = "import os, socket; print(os.getcwd() == os.environ['TMPDIR']); socket.socket()"
    outcome = sandbox.run([sys.executable, "-c", code], name=sandbox.UNSAFE)
    assert outcome.stdout == b"True\n" and b"not permitted" in outcome.stderr

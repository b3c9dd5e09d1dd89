"""Native builds: every state of a machine or folder ends in a library that runs or in one error."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from tqdm import tqdm

from course.speed import native
from course.speed.native import NativeError

ROOT = Path(__file__).resolve().parents[3]
COPY = 'for out; do :; done; echo "a library" > "$out"'  # a compiler's work, without a compiler
ANSWER = 'extern "C" int answer() { return 42; }\n'
PATIENCE = 60  # seconds until a test that waits for a process fails


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "src" / "lib.cpp"
    path.parent.mkdir()
    path.write_text(ANSWER)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build folder that is not there yet; the folder for temporary files is beside it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(native.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.delenv("CXX", raising=False)
    native._ask_version.cache_clear()
    return tmp_path / "build"


@pytest.fixture
def build(source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`build(body)` builds with a compiler whose work is a shell script's body."""

    def with_compiler(body: str = COPY, library: str = "lib") -> Path:
        monkeypatch.setenv("CXX", str(script(tmp_path / "bin" / "c++", body)))
        return native.build(library, native.cpp_compiler(), source, folder)

    return with_compiler


def script(path: Path, body: str, version: str = "echo 1.0") -> Path:
    """Write a compiler that answers `--version`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = f'for w; do [ "$w" = --version ] && {{ {version}; exit; }}; done'
    path.write_text(f"#!/bin/sh\n{answer}\n{body}\n")
    path.chmod(0o755)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").exists()


# --- Finding a compiler


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("g++ -O1", ["g++", "-O1"]),
        ("ccache g++", ["ccache", "g++"]),
        ("ccache g++ -O1 -g", ["ccache", "g++", "-O1", "-g"]),
        ("  g++  ", ["g++"]),
        ('g++ "-DNAME=two words"', ["g++", "-DNAME=two words"]),
        ("{bin}/with space/g++", ["{bin}/with space/g++"]),
        ("'{bin}/with space/g++' -O1", ["{bin}/with space/g++", "-O1"]),
    ],
)
def test_cxx_is_a_command_with_arguments(folder, tmp_path, monkeypatch, value, words):
    place = tmp_path / "bin"
    for name in ("g++", "ccache", "with space/g++"):
        script(place / name, "")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("CXX", value.format(bin=place))
    compiler = native.cpp_compiler("-O2")
    first, *others = (word.format(bin=place) for word in words)
    assert compiler.command[: len(words)] == (shutil.which(first), *others)
    assert compiler.command[-1] == "-O2" and "-shared" in compiler.command
    assert compiler.version == "1.0\n" and compiler.suffix == "cpp"
    assert compiler.name == ("ccache g++" if "ccache" in value else "g++")


def test_without_cxx_the_first_of_three(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", " ")  # blank, as if it were not set
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(native, "_run", lambda command, *rest: (0, ""))
    for name in ("c++", "clang++", "g++"):
        script(tmp_path / "bin" / name, "")
        assert native.cpp_compiler().command[0] == str(tmp_path / "bin" / name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/nowhere/g++", r"CXX=/nowhere/g\+\+ names no program that can be run here"),
        ("nothing-of-this-name -O1", "names no program that can be run here"),
        ("'g++", r"CXX='g\+\+ is no command .No closing quotation."),
        ("/tmp", "names no program"),
        ("''", "names no program"),
        ("/bin/sh -c 'exit 3'", "--version fails: no message"),
        ("/bin/sh -c 'echo bad luck >&2; exit 3'", "--version fails: bad luck"),
    ],
)
def test_cxx_that_is_no_compiler(folder, monkeypatch, value, message):
    monkeypatch.setenv("CXX", value)
    with pytest.raises(NativeError, match=message):
        native.cpp_compiler()


def test_no_compiler_at_all(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    with pytest.raises(NativeError, match=r"no C\+\+ compiler .* install one, or name it in CXX"):
        native.cpp_compiler()
    with pytest.raises(NativeError, match="no nvcc: install the CUDA toolkit"):
        native.cuda_compiler((9, 0))


@pytest.mark.parametrize(
    "octal",
    [r"\377\376", r"f\374r", r"g++ \200 1.0", r"\303", r"\000\001", r"\355\240\200"],
)
def test_a_version_that_is_not_utf_8(source, folder, tmp_path, monkeypatch, octal):
    program = script(tmp_path / "bin" / "c++", COPY, f"printf '{octal}'")
    monkeypatch.setenv("CXX", str(program))
    compiler = native.cpp_compiler()
    assert compiler.version and native.build("lib", compiler, source, folder).exists()


@pytest.mark.parametrize("machine", ["x86_64", "arm64", "aarch64"])
def test_flags_for_this_processor(folder, monkeypatch, machine):
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    monkeypatch.setenv("CXX", "/bin/true")
    command = native.cpp_compiler().command
    assert ("-march=native" in command) == (machine == "x86_64")
    assert ("-mcpu=native" in command) == (machine != "x86_64")
    assert {"-std=c++20", "-fPIC", "-shared", "-pthread"} <= set(command)


def test_the_target_names_the_processor(monkeypatch):
    targets = set()
    for text in ("flags : sse avx\n", "flags : sse\n", "other : avx\n"):
        monkeypatch.setattr(native.Path, "read_text", lambda *_, text=text, **__: text)
        targets.add(native._processor.__wrapped__())
    assert len(targets) == 3 and any("avx" in target for target in targets)


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH", "PATH"])
def test_nvcc_is_found(folder, tmp_path, monkeypatch, variable):
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    nvcc = script(tmp_path / "bin" / "nvcc", "", "echo release 13.0")
    value = f"{nvcc.parent}:{os.environ['PATH']}" if variable == "PATH" else str(tmp_path)
    monkeypatch.setenv(variable, value)
    compiler = native.cuda_compiler((9, 0), "-fmad=false")
    assert compiler.command[0] == str(nvcc) and compiler.target == "sm_90"
    assert {"-arch=sm_90", "-fmad=false", "-shared", "-O3"} <= set(compiler.command)
    assert compiler.suffix == "cu" and "release 13.0" in compiler.version


# --- Building


def test_compiles_once_says_so_and_loads_what_is_there(source, folder, monkeypatch, capfd):
    """With the compiler of this machine."""
    try:
        compiler = native.cpp_compiler()
    except NativeError as error:
        warnings.warn(f"NO C++ COMPILER: {error}", stacklevel=1)
        pytest.skip(f"NO C++ COMPILER: {error}")
    assert native.load("lib", compiler, source, folder).answer() == 42
    expected = f"Compiling lib for the CPU ({compiler.name}, only this once)"
    assert expected in capfd.readouterr().err
    assert names(folder) == [".sha256", ".so"]
    assert native.load("lib", compiler, source, folder).answer() == 42
    assert capfd.readouterr().err == ""


def test_the_name_changes_with_all_that_decides(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    file, header = tmp_path / "a" / "lib.cpp", tmp_path / "b" / "lib.h"
    file.write_text("1")
    header.write_text("2")

    def name(command=("c++", "-O2"), version="1.0", target="x86", suffix="cpp", versions=("2.11",)):
        compiler = native.Compiler(command, version, target, suffix)
        return native.library_name("lib", compiler, [file.parent, header.parent], versions)

    first = name()
    assert first == name() and first.startswith("lib_cpp_")
    changed = {
        name(command=("c++", "-O3")),
        name(command=("g++", "-O2")),
        name(version="1.1"),
        name(target="arm"),
        name(suffix="cu"),
        name(versions=("2.12",)),
        name(versions=()),
    }
    for path in (file, header):
        text = path.read_text()
        path.write_text(text + "// changed")
        changed.add(name())
        path.write_text(text)
    header.rename(header.with_name("other.h"))
    changed.add(name())
    assert len(changed) == 10 and first not in changed


HARMS = {
    "cut off": lambda library: library.write_bytes(library.read_bytes()[:-1]),
    "empty": lambda library: library.write_bytes(b""),
    "other bytes": lambda library: library.write_bytes(b"a librarY\n"),
    "longer": lambda library: library.write_bytes(library.read_bytes() * 2),
    "gone": lambda library: library.unlink(),
    "no checksum": lambda library: library.with_suffix(".sha256").unlink(),
    "empty checksum": lambda library: library.with_suffix(".sha256").write_bytes(b""),
    "another checksum": lambda library: library.with_suffix(".sha256").write_text("0" * 64),
    "no text": lambda library: library.with_suffix(".sha256").write_bytes(b"\xff" * 64),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_library_is_built_again(build, harm):
    library = build()
    before = library.read_bytes()
    assert native.is_intact(library)
    HARMS[harm](library)
    assert not native.is_intact(library)
    assert build() == library and library.read_bytes() == before and native.is_intact(library)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_no_other_user_can_write_to_a_library(build, mask):
    before = os.umask(mask)
    try:
        library = build()
    finally:
        os.umask(before)
    assert stat.S_IMODE(library.stat().st_mode) == 0o755
    assert stat.S_IMODE(library.with_suffix(".sha256").stat().st_mode) == 0o644
    assert not library.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    assert native.is_private(library.parent)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o720, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_not_used(build, folder, mode):
    """Not for a library that is there, and not to compile into."""
    library = build()
    folder.chmod(mode)
    assert not native.is_private(folder)
    elsewhere = build()
    assert elsewhere != library and elsewhere.parent == native.fallback_folder()
    native.fallback_folder().chmod(mode)
    with pytest.raises(NativeError, match=r"must be writable by you and by nobody else \(chmod go"):
        build()
    folder.chmod(0o755)
    assert build() == library


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o711, 0o750, 0o500])
def test_a_folder_of_this_user_is_private(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    assert native.is_private(folder)
    folder.chmod(0o755)


def test_where_there_are_no_users_every_folder_is_private(folder, monkeypatch):
    """On Windows, whose folder for temporary files is the user's own."""
    monkeypatch.delattr(os, "getuid")
    folder.mkdir()
    folder.chmod(0o777)
    assert native.is_private(folder) and native.fallback_folder().name == "course_native_user"


def test_a_folder_of_another_user_or_a_link_is_not_private(folder, tmp_path, monkeypatch):
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "link", tmp_path / "file", tmp_path / "nothing"):
        assert not native.is_private(path)
    real = folder.lstat()
    for owner, expected in ((real.st_uid, True), (0, True), (54321, False)):
        status = os.stat_result((real.st_mode, 1, 1, 1, owner, *real[5:]))
        monkeypatch.setattr(native.Path, "lstat", lambda self, status=status: status)
        assert native.is_private(folder) == expected


@pytest.mark.parametrize("denied", [os.W_OK, os.X_OK])
def test_a_folder_without_the_right_to_write_is_not_used(build, folder, monkeypatch, denied):
    """As on a file system that is mounted read-only."""
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder or not mode & denied)
    assert build().parent == native.fallback_folder()


def test_what_cannot_be_written_is_compiled_elsewhere(build, folder, tmp_path):
    folder.write_text("a file, where the folder should be")
    assert build().parent == tmp_path / "temporary" / f"course_native_{os.getuid()}"
    native.fallback_folder().rename(tmp_path / "away")
    native.fallback_folder().write_text("here too")
    with pytest.raises(NativeError, match="no folder to compile lib into: .* or .*course_native_"):
        build()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo 'lib.cpp:3: error: bad luck' >&2; exit 7", "status 7: lib.cpp:3: error: bad luck"),
        ("echo first; echo last; exit 1", "status 1: last"),
        ("exit 1", "status 1: no message"),
        (r"printf '\377 error \376\n'; exit 2", "status 2: \ufffd error \ufffd"),
        ("kill -9 $$", "failed with status "),
    ],
)
def test_a_compiler_that_fails_leaves_nothing_behind(build, folder, body, message):
    with pytest.raises(NativeError, match=message):
        build(body)
    assert names(folder) == []


def test_a_compiler_that_writes_nothing(source, folder, monkeypatch):
    monkeypatch.setenv("CXX", "/bin/true")
    with pytest.raises(NativeError, match="lib cannot be compiled or loaded here: .*No such file"):
        native.load("lib", native.cpp_compiler(), source, folder)
    assert names(folder) == []


def test_a_program_that_does_not_run(source, folder, tmp_path):
    program = script(tmp_path / "c++", "")
    program.write_bytes(b"\x7fELF of another machine")
    with pytest.raises(NativeError, match=r"--version fails: .*Exec format error"):
        native._version((str(program),))


def test_without_a_path_or_a_folder_for_temporary_files(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(script(tmp_path / "c++", "")))
    monkeypatch.setenv("PATH", "/nowhere")
    assert native.cpp_compiler().version == "1.0\n"
    native._ask_version.cache_clear()
    monkeypatch.setattr(native.tempfile, "gettempdir", lambda: str(tmp_path / "nowhere"))
    with pytest.raises(NativeError, match="--version cannot be run: .*No such file or directory"):
        native.cpp_compiler()


def test_a_library_that_cannot_be_loaded(build, source, folder, monkeypatch):
    build()
    with pytest.raises(NativeError, match="lib cannot be compiled or loaded here: "):
        native.load("lib", native.cpp_compiler(), source, folder)


def test_the_time_of_a_compilation_is_shown(build, tmp_path, monkeypatch):
    line = tqdm(disable=True)
    updates: list[bool] = []
    monkeypatch.setattr(line, "update", lambda: (updates.append(True), (tmp_path / "go").touch()))
    monkeypatch.setattr(native, "_elapsed", lambda what: line)
    wait = f"[ -e {tmp_path}/go ] || [ $n -gt 500 ]"
    build(f"n=0; until {wait}; do n=$((n + 1)); sleep 0.01; done; {COPY}")
    assert updates


# --- Compilers that hang, runs that are killed


HANGS = {
    "sleeps": "sleep 600",
    "ignores signals": "trap '' TERM INT HUP; sleep 600; sleep 600",
    "waits for a child": "sleep 600 & echo $! >> {pids}; wait",
    "waits for its input": "sleep 600 | cat",
    "is stopped": "kill -STOP $$; sleep 600",
    "writes on": "while :; do echo on and on; sleep 0.1; done",
}


def hang_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let time run fast as soon as the compiler has started."""
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 1e3 if (tmp_path / "pids").exists() and started(tmp_path) else 0
        return now

    monkeypatch.setattr(native.time, "monotonic", monotonic)


def hanging(tmp_path: Path, hang: str) -> str:
    pids = tmp_path / "pids"
    return f"echo $$ >> {pids}; {HANGS[hang].format(pids=pids)}"


def started(tmp_path: Path) -> list[int]:
    return [int(word) for word in (tmp_path / "pids").read_text().split()]


@pytest.mark.parametrize("hang", HANGS)
def test_a_compiler_that_hangs_is_stopped(build, folder, tmp_path, monkeypatch, hang):
    with monkeypatch.context() as patch:
        hang_clock(patch, tmp_path)
        with pytest.raises(NativeError, match=r"c\+\+ did not finish within 600 seconds"):
            build(hanging(tmp_path, hang))
    wait_until(lambda: not any(map(is_alive, started(tmp_path))))
    assert names(folder) == []


def test_a_version_that_hangs_is_waited_for_once(folder, tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    program = script(tmp_path / "c++", "", f"echo $$ >> {pids}; sleep 600")
    monkeypatch.setenv("CXX", str(program))
    with monkeypatch.context() as patch:
        hang_clock(patch, tmp_path)
        for _ in range(3):
            with pytest.raises(NativeError, match="did not finish within 60 seconds"):
                native.cpp_compiler()
    [pid] = started(tmp_path)
    wait_until(lambda: not is_alive(pid))


def start_build(source: Path, folder: Path, compiler: Path) -> subprocess.Popen:
    code = (
        "import signal; from pathlib import Path; from course.speed import native; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job ignores it
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        f"native.build('lib', native.cpp_compiler(), Path({str(source)!r}), Path({str(folder)!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "CXX": str(compiler), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("end", "hang"),
    [
        (signal.SIGKILL, "sleeps"),
        (signal.SIGKILL, "waits for a child"),
        (signal.SIGKILL, "ignores signals"),
        (signal.SIGTERM, "sleeps"),
        (signal.SIGINT, "ignores signals"),
        (signal.SIGHUP, "waits for its input"),
    ],
)
def test_no_compiler_outlives_a_killed_run(build, source, folder, tmp_path, end, hang):
    """And the next run removes what the killed one left, builds, and does not wait."""
    compiler = script(tmp_path / "bin" / "c++", hanging(tmp_path, hang))
    with start_build(source, folder, compiler) as process:
        wait_until(lambda: (tmp_path / "pids").exists() and bool(started(tmp_path)))
        assert any(folder.glob(".partial-*")) and (folder / native.LOCK).exists()
        process.send_signal(end)
        assert process.wait(PATIENCE) != 0
    wait_until(lambda: not any(map(is_alive, started(tmp_path))))
    assert build().exists()
    assert names(folder) == [".sha256", ".so"]


@pytest.mark.parametrize("left", ["partial", "lock", "both", "of another library", "nothing"])
def test_what_a_killed_run_left_goes_even_where_the_library_is_there(
    build, folder, left, monkeypatch
):
    library = build()
    if left == "nothing":  # and nothing is locked
        monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: pytest.fail("a lock"))
    partial = folder / f".partial-{'other' if 'other' in left else library.stem}.so-abc"
    if left not in ("lock", "nothing"):
        partial.mkdir()
        (partial / "half.so").write_bytes(b"half")
    if left in ("lock", "both"):
        (folder / native.LOCK).write_text("12345")
    assert build() == library
    assert names(folder) == [".sha256", ".so"]


def test_what_a_live_process_builds_stays(build, folder, monkeypatch):
    """Another library of the same folder is there: nobody waits, and nobody is disturbed."""
    library = build()
    (folder / ".partial-other.so-abc").mkdir()
    waits: list[float | None] = []
    acquire = FileLock.acquire
    with FileLock(folder / native.LOCK), monkeypatch.context() as patch:
        patch.setattr(
            FileLock,
            "acquire",
            lambda self, timeout=None: waits.append(timeout) or acquire(self, timeout=timeout),
        )
        assert build() == library
    assert (folder / ".partial-other.so-abc").exists() and waits == [0]


def test_waits_for_another_process_that_builds(build, source, folder, tmp_path, capfd):
    """Which is done before: its library is taken."""
    gate = tmp_path / "gate"
    slow = f"echo $$ >> {tmp_path}/pids; until [ -e {gate} ]; do sleep 0.05; done; {COPY}"
    compiler = script(tmp_path / "bin" / "c++", slow)
    real = FileLock.acquire

    def acquire(self, timeout=None):
        try:
            return real(self, timeout=0 if timeout == 1 else timeout)
        except Timeout:
            gate.touch()
            raise

    with start_build(source, folder, compiler) as process, pytest.MonkeyPatch.context() as patch:
        wait_until(lambda: (tmp_path / "pids").exists())
        patch.setattr(FileLock, "acquire", acquire)
        patch.setattr(native, "_clear", lambda place: None)
        library = build("exit 1")  # of the same name and version: it would fail
        assert process.wait(PATIENCE) == 0
    assert native.is_intact(library)
    assert f"Another process is compiling into {folder}: waiting" in capfd.readouterr().err
    assert names(folder) == [".sha256", ".so"]


def test_a_lock_file_that_somebody_removed(build, folder):
    assert native.is_intact(build(f"rm {folder}/{native.LOCK}; {COPY}"))
    assert names(folder) == [".sha256", ".so"]


def test_a_lock_that_never_opens(build, folder, monkeypatch):
    waits: list[float] = []

    def acquire(self, timeout=None):
        waits.append(timeout)
        raise Timeout(str(self.lock_file))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(NativeError, match=r"another process has held .*build.lock for 660 seconds"):
        build()
    assert waits == [1, 660] and native.LOCK_LIMIT > native.COMPILE_LIMIT


@pytest.mark.parametrize(
    "error",
    [NotImplementedError("no flock"), OSError(errno.ENOSYS, "none"), OSError(errno.ENOLCK, "none")],
)
def test_a_file_system_without_locks(build, folder, monkeypatch, error):
    def flock(fd: int, operation: int) -> None:
        raise error

    monkeypatch.setattr("fcntl.flock", flock)
    (folder / ".partial-other.so-abc").mkdir(parents=True)  # maybe of a process that is at work
    folder.chmod(0o755)
    for _ in range(2):
        library = build()
        assert native.is_intact(library) and (folder / ".partial-other.so-abc").exists()


def test_needs_no_other_module_of_the_course():
    """A folder with a compiler and Python packages is enough; importing it starts nothing heavy."""
    code = (
        "import sys; from course.speed import native; "
        "print([m for m in sys.modules if 'torch' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"

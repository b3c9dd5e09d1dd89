"""The back end: whatever state a machine or a build folder is in, the work runs, and one line says on what."""

import ctypes
import dataclasses
import doctest
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from task_3_DreamFusion import kernels
from task_3_DreamFusion.freqencoder import freq_encode, reference
from task_3_DreamFusion.kernels import Unavailable
from tests.task_3.conftest import CPU, apart, need

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "freqencoder"  # compiles in a second
# Whatever the sources export, on both sides: the CUDA library of a package must have it too.
FUNCTIONS = {
    package: set(re.findall(r"EXPORT int (\w+)\(", "".join(path.read_text() for path in sources.glob("src/*.[ch]*"))))
    for package, sources in ((package, kernels.HERE / package) for package in kernels.PACKAGES)
}


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty build folder, and no library in memory."""
    monkeypatch.setattr(kernels, "BUILD", tmp_path / "build")
    kernels.load.cache_clear()
    kernels._version.cache_clear()
    yield tmp_path / "build"
    kernels.load.cache_clear()
    kernels._version.cache_clear()


@pytest.fixture(scope="session")
def prebuilt():
    """A library that the compiler of this machine made."""
    try:
        return kernels.build(PACKAGE, kernels.cpu_compiler())
    except Unavailable as reason:
        pytest.skip(f"NO COMPILED KERNELS: {reason}")


@pytest.fixture
def compiler(prebuilt, fresh, tmp_path, monkeypatch):
    """One that is quick: it copies what the real one made."""
    monkeypatch.setenv("CXX", str(compiler_script(tmp_path, copy_of(prebuilt))))
    return kernels.cpu_compiler()


def copy_of(library: Path) -> str:
    return f'for out; do :; done; cp {library} "$out"'


def compiler_script(folder: Path, body: str) -> Path:
    """A compiler of our own, for CXX."""
    script = folder / "c++"
    script.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo 1.0; exit; fi\n{body}\n')
    script.chmod(0o755)
    return script


def encodes() -> bool:
    """Whether the encoding runs and is right, on whichever path."""
    x = torch.rand(20, 3)
    return apart(freq_encode(x, 4), reference.freq_encode(x.double(), 4)) < 1e-5


def built(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("package", FUNCTIONS)
def test_examples_of_the_documentation(package):
    module = importlib.import_module(f"task_3_DreamFusion.{package}.{kernels.PACKAGES[package]}")
    found = doctest.testmod(module, extraglobs={"torch": torch})
    assert found.attempted and not found.failed


# --- Building


def test_builds_once_says_so_and_loads_what_is_there(prebuilt, fresh, monkeypatch, capfd):
    """With the real compiler."""
    compiler = kernels.cpu_compiler()
    assert kernels.ready(PACKAGE, CPU) and encodes()
    assert f"Compiling {PACKAGE} for the CPU ({compiler.name}, only this once)" in capfd.readouterr().err
    assert built(fresh) == [".sha256", ".so"]
    kernels.load.cache_clear()
    assert kernels.ready(PACKAGE, CPU)
    assert capfd.readouterr().err == ""


def test_the_name_changes_with_all_that_decides(compiler, fresh, tmp_path, monkeypatch):
    def name(compiler=compiler):
        return kernels.library_name(PACKAGE, compiler)

    names = {name(), name(kernels.Compiler(compiler.command, "another version", compiler.target, "cpp"))}
    names.add(name(kernels.Compiler((*compiler.command, "-g"), compiler.version, compiler.target, "cpp")))
    names.add(name(kernels.Compiler(compiler.command, compiler.version, "another processor", "cpp")))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0.1")
        names.add(name())
    with monkeypatch.context() as patch:
        patch.setattr(torch.version, "cuda", "99.9")
        names.add(name())
    for file in ("src/common.h", "freqencoder/src/freq.h"):
        copy = tmp_path / file.replace("/", "_")
        for part in ("src", "freqencoder/src"):
            (copy / part).mkdir(parents=True)
            for path in (kernels.HERE / part).iterdir():
                (copy / part / path.name).write_bytes(path.read_bytes())
        (copy / file).write_text((copy / file).read_text() + "\n// changed")
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "HERE", copy)
            names.add(name())
    assert len(names) == 8 and name() in names


@pytest.mark.parametrize("harm", ["cut off", "empty", "no sum", "a folder's worth of nothing"])
def test_a_half_written_library_is_built_again(compiler, fresh, harm, capfd):
    path = kernels.build(PACKAGE, compiler)
    whole = path.read_bytes()
    if harm == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "no sum":
        kernels._checksum(path).unlink()
    else:
        path.unlink()
    capfd.readouterr()
    assert kernels.ready(PACKAGE, CPU) and encodes()
    assert "Compiling" in capfd.readouterr().err
    assert kernels._intact(path)


def test_what_a_dead_process_left_is_cleared(compiler, fresh):
    """Its lock file locks nothing, and its folder goes."""
    name = kernels.library_name(PACKAGE, compiler)
    fresh.mkdir()
    (fresh / f"{name}.lock").write_text("12345")
    left = fresh / f"{Path(name).stem}.partial-abc"
    left.mkdir()
    (left / name).write_bytes(b"half")
    began = time.perf_counter()
    assert kernels.ready(PACKAGE, CPU) and encodes()
    assert time.perf_counter() - began < 30 and not left.exists()


def test_killed_during_a_build(prebuilt, fresh, tmp_path, monkeypatch):
    """SIGKILL while the compiler works: the next process builds, and does not wait."""
    compiler_script(tmp_path, f"touch {tmp_path}/started; sleep 600")
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    code = (
        "import torch; from pathlib import Path; from task_3_DreamFusion import kernels; "
        f"kernels.BUILD = Path({str(fresh)!r}); kernels.ready({PACKAGE!r}, torch.device('cpu'))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        until = time.perf_counter() + 120
        while not (tmp_path / "started").exists() and time.perf_counter() < until:
            time.sleep(0.1)
        [partial] = fresh.glob("*.partial-*")
        assert process.poll() is None
        process.kill()
        process.wait()
        compiler_script(tmp_path, copy_of(prebuilt))  # of the same name and version, so for the same library
        began = time.perf_counter()
        assert kernels.ready(PACKAGE, CPU) and encodes()
        assert time.perf_counter() - began < 30 and not partial.exists()
        assert built(fresh) == [".sha256", ".so"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the compiler, which sleeps on


def test_a_failed_compiler_leaves_nothing_behind(fresh, tmp_path, monkeypatch):
    script = compiler_script(tmp_path, "echo 'freq.cpp:3: error: no such luck' >&2; exit 7")
    monkeypatch.setenv("CXX", str(script))
    found = kernels.load(PACKAGE, "cpu")
    assert isinstance(found, Unavailable) and "failed with status 7: freq.cpp:3: error: no such luck" in str(found)
    assert built(fresh) == []


def test_waits_for_another_that_builds(compiler, fresh, capfd):
    fresh.mkdir()
    lock = fresh / f"{kernels.library_name(PACKAGE, compiler)}.lock"
    hold = (
        f"import time, filelock; lock = filelock.FileLock({str(lock)!r}); lock.acquire(); "
        "print(flush=True); time.sleep(2.5)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        began = time.perf_counter()
        kernels.build(PACKAGE, compiler)
        assert time.perf_counter() - began > 1.5
    assert f"Another process compiles {PACKAGE}: waiting" in capfd.readouterr().err


def test_a_file_system_without_locks(compiler, fresh, monkeypatch):
    def refuse(self, timeout=None):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert kernels.ready(PACKAGE, CPU) and encodes()


def test_a_checkout_that_is_read_only(compiler, fresh, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernels, "BUILD", tmp_path / "file" / "build")  # nobody can make that, not even root
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert kernels.build(PACKAGE, compiler).parent.parent == tmp_path / "temporary"
    kernels._folders()[1].chmod(0o777)  # others could put a library there
    with pytest.raises(Unavailable, match="no folder to compile into"):
        kernels.build(PACKAGE, compiler)


# --- The next best path


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda patch: patch.setenv("PATH", "/nowhere"), "no C++ compiler (g++ or clang++): install one"),
        (lambda patch: patch.setenv("CXX", "/nowhere/c++"), "CXX=/nowhere/c++ is no program here"),
        (lambda patch: patch.setenv("CXX", "/bin/false"), "--version fails"),
    ],
)
def test_without_a_compiler_pytorch_runs_and_one_line_says_why(fresh, monkeypatch, capfd, prepare, said):
    monkeypatch.delenv("CXX", raising=False)
    prepare(monkeypatch)
    assert encodes() and encodes()
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{PACKAGE} runs on PyTorch for cpu, which is slower: ") and said in lines[0]


def test_without_nvcc(fresh, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    found = kernels.load(PACKAGE, "cuda", (9, 0))
    assert isinstance(found, Unavailable) and "no nvcc: install the CUDA toolkit" in str(found)


def test_another_kind_of_device(fresh):
    found = kernels.load(PACKAGE, "mps")
    assert "kernels exist for the CPU and for CUDA, not for mps" in str(found)


def test_a_library_that_does_not_run_here(prebuilt, fresh, monkeypatch):
    """As one whose compiler is too new for the driver: its probe fails, and PyTorch runs."""
    source = fresh.parent / "broken.cpp"
    source.write_text('extern "C" int probe() { return 35; } extern "C" const char *explain(int) { return "too old"; }')
    library = fresh.parent / "broken.so"
    subprocess.run([kernels.cpu_compiler().command[0], "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setattr(kernels, "build", lambda package, compiler: library)
    assert "does not run here: too old" in str(kernels.load(PACKAGE, "cpu"))
    assert encodes()


def test_flags_for_cuda(tmp_path, monkeypatch):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho release 13.0")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = kernels.cuda_compiler((9, 0))
    assert found.command[0] == str(nvcc) and "-arch=sm_90" in found.command and "release 13.0" in found.version


@pytest.mark.parametrize("package", FUNCTIONS)
def test_cuda_sources_compile(fresh, package):
    """Without a GPU too, where there is nvcc."""
    try:
        compiler = kernels.cuda_compiler((9, 0))
    except Unavailable as reason:
        pytest.skip(f"CUDA SOURCES NOT COMPILED: {reason}")
    quickly = dataclasses.replace(compiler, command=(*compiler.command, "-Xcicc", "-O0", "-Xptxas", "-O0"))
    library = ctypes.CDLL(str(kernels.build(package, quickly)))  # needs no driver until it is called
    for function in FUNCTIONS[package] | {"probe", "explain", "select_device"}:
        assert library[function]


# --- Calling


def test_a_kernel_is_not_handed_what_it_cannot_read():
    need(PACKAGE)
    strided, other = torch.rand(4, 6)[:, :3], torch.empty(4, device="meta")
    for value in (strided, other):
        with pytest.raises(ValueError, match="cannot read a tensor of"):
            kernels.call(PACKAGE, "freq_encode", CPU, 1, value)
    with pytest.raises(TypeError, match="takes no str"):
        kernels.call(PACKAGE, "freq_encode", CPU, "float")


def test_a_type_without_a_kernel_is_an_error():
    need(PACKAGE)
    x = torch.rand(4, 3)
    with pytest.raises(RuntimeError, match="freq_encode of freqencoder failed on cpu: no kernel for this type"):
        kernels.call(PACKAGE, "freq_encode", CPU, 0, x, None, x, 4, 3, 1)


def test_every_call_is_of_a_function_that_is_exported():
    for package, functions in FUNCTIONS.items():
        source = (kernels.HERE / package / f"{kernels.PACKAGES[package]}.py").read_text()
        strings = set(re.findall(r'"(\w+)"', source))
        assert functions and functions <= strings, functions - strings


@pytest.mark.parametrize("package", FUNCTIONS)
def test_the_library_has_what_python_calls(package):
    need(package)
    library = kernels.load(package, "cpu")
    assert isinstance(library, ctypes.CDLL) and library.probe() == 0
    assert all(library[function] for function in FUNCTIONS[package])


def test_report(monkeypatch, capsys):
    need(PACKAGE)
    reason = Unavailable("no compiler")
    load = kernels.load
    monkeypatch.setattr(kernels, "load", lambda package, *rest: load(package, *rest) if package == PACKAGE else reason)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert kernels.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == [PACKAGE, "cpu", "C++"] and lines[1].split()[1:] == [
        "cpu",
        "PyTorch",
        "no",
        "compiler",
    ]

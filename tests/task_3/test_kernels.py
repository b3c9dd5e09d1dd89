"""The back end: work runs whatever state a machine or a build folder is in; one line says how."""

import ctypes
import dataclasses
import doctest
import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from course.speed import native
from course.speed.native import NativeError
from task_3_DreamFusion import kernels
from task_3_DreamFusion.freqencoder import freq_encode, reference
from tests.task_3.conftest import CPU, need, relative_error

PACKAGE = "freqencoder"  # compiles in a second
# Whatever the sources export, on both sides: the CUDA library of a package must have it too.
FUNCTIONS = {
    package: set(
        re.findall(
            r"EXPORT int (\w+)\(", "".join(path.read_text() for path in sources.glob("src/*.[ch]*"))
        )
    )
    for package, sources in ((package, kernels.HERE / package) for package in kernels.PACKAGES)
}


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty build folder, and no library in memory."""
    monkeypatch.setattr(kernels, "BUILD", tmp_path / "build")
    kernels.load.cache_clear()
    native._ask_version.cache_clear()
    yield tmp_path / "build"
    kernels.load.cache_clear()
    native._ask_version.cache_clear()


@pytest.fixture(scope="session")
def prebuilt() -> Path:
    """A library that the compiler of this machine made."""
    need(PACKAGE)
    library = kernels.load(PACKAGE, "cpu")
    assert isinstance(library, ctypes.CDLL)
    return Path(library._name)


def encodes() -> bool:
    """Whether the encoding runs and is right, on whichever path."""
    x = torch.rand(20, 3)
    return relative_error(freq_encode(x, 4), reference.freq_encode(x.double(), 4)) < 1e-5


@pytest.mark.parametrize("package", FUNCTIONS)
def test_examples_of_the_documentation(package):
    module = importlib.import_module(f"task_3_DreamFusion.{package}.{kernels.PACKAGES[package]}")
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted and not result.failed


# --- Building


def test_a_package_is_compiled_once(prebuilt, fresh, monkeypatch, capfd):
    """With the real compiler; tests/course/speed/test_native.py has the rest."""
    compiler = kernels._compiler("cpu", None)
    assert kernels.is_available(PACKAGE, CPU) and encodes()
    expected = f"Compiling {PACKAGE} for the CPU ({compiler.name}, only this once)"
    assert expected in capfd.readouterr().err
    assert sorted(path.suffix for path in fresh.iterdir()) == [".sha256", ".so"]
    kernels.load.cache_clear()
    assert kernels.is_available(PACKAGE, CPU)
    assert capfd.readouterr().err == ""


def test_the_library_changes_with_sources_torch_and_cuda(prebuilt, fresh, tmp_path, monkeypatch):
    """What `kernels` adds to what `native` looks at."""
    paths = []

    def build(name, compiler, source, folder, includes=(), versions=()):
        sources = [*includes, source.parent]
        paths.append(native.library_name(name, compiler, sources, versions))
        return prebuilt

    def load() -> None:
        kernels.load.cache_clear()
        assert kernels.is_available(PACKAGE, CPU)

    monkeypatch.setattr(native, "build", build)
    load()
    for module, name in ((torch, "__version__"), (torch.version, "cuda")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, "99.9")
            load()
    for file in ("src/common.h", "freqencoder/src/freq.h"):
        copy = tmp_path / file.replace("/", "_")
        for part in ("src", "freqencoder/src"):
            shutil.copytree(kernels.HERE / part, copy / part)
        (copy / file).write_text((copy / file).read_text() + "\n// changed")
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "HERE", copy)
            load()
    load()
    assert len(set(paths)) == 5 and paths[0] == paths[-1]


def test_a_launcher_and_arguments_are_no_reason_for_pytorch(
    prebuilt,
    fresh,
    tmp_path,
    monkeypatch,
):
    """With the real compiler; tests/course/speed/test_native.py has more of such commands."""
    launcher = tmp_path / "ccache"
    launcher.write_text('#!/bin/sh\nexec "$@"\n')
    launcher.chmod(0o755)
    cxx = native.cpp_compiler().command[0]
    monkeypatch.setenv("CXX", f"{launcher} {cxx} -O1")
    assert kernels.is_available(PACKAGE, CPU) and encodes()


# --- The next best path


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda patch: patch.setenv("PATH", "/nowhere"),
            "no C++ compiler (g++ or clang++): install one",
        ),
        (lambda patch: patch.setenv("CXX", "/nowhere/c++"), "CXX=/nowhere/c++ names no program"),
        (lambda patch: patch.setenv("CXX", "'g++"), "No closing quotation"),
        (lambda patch: patch.setenv("CXX", "/bin/false"), "--version fails"),
        (lambda patch: patch.setenv("CXX", "/bin/sh -c 'exit 1' x"), "--version fails: no message"),
        (lambda patch: patch.setenv("CXX", "/bin/echo"), "cannot be compiled or loaded here"),
        (lambda patch: patch.setattr(kernels, "BUILD", Path("/dev/null")), "no folder to compile"),
    ],
)
def test_without_a_compiler_pytorch_runs_and_one_line_says_why(
    fresh, monkeypatch, capfd, prepare, message
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native, "fallback_folder", lambda: Path("/dev/null"))
    prepare(monkeypatch)
    assert encodes() and encodes()
    lines = capfd.readouterr().err.strip().splitlines()
    lines = [line for line in lines if "Compiling" not in line]
    assert len(lines) == 1
    assert (
        lines[0].startswith(f"{PACKAGE} runs on PyTorch for cpu, which is slower: ")
        and message in lines[0]
    )


def test_without_nvcc(fresh, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    result = kernels.load(PACKAGE, "cuda", (9, 0))
    assert isinstance(result, NativeError) and "no nvcc: install the CUDA toolkit" in str(result)


def test_another_kind_of_device(fresh):
    result = kernels.load(PACKAGE, "mps")
    assert "there are kernels for cpu and cuda, not for mps" in str(result)


def test_a_library_that_does_not_run_here(prebuilt, fresh, monkeypatch):
    """As one whose compiler is too new for the driver: its probe fails, and PyTorch runs."""
    source = fresh.parent / "broken.cpp"
    source.write_text(
        'extern "C" int probe() { return 35; } '
        'extern "C" const char *error_string(int) { return "too old"; }'
    )
    library = fresh.parent / "broken.so"
    cxx = native.cpp_compiler().command[0]
    subprocess.run([cxx, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setattr(native, "build", lambda *_: library)
    assert "does not run here: too old" in str(kernels.load(PACKAGE, "cpu"))
    assert encodes()


@pytest.mark.parametrize(("kind", "flag"), [("cpu", "-ffp-contract=off"), ("cuda", "-fmad=false")])
def test_nothing_is_contracted(tmp_path, monkeypatch, kind, flag):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho release 13.0")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(nvcc))
    compiler = kernels._compiler(kind, (9, 0))
    assert compiler.command[0] == str(nvcc) and flag in compiler.command
    assert "-fvisibility=hidden" in compiler.command


@pytest.mark.parametrize("package", FUNCTIONS)
def test_cuda_sources_compile(fresh, monkeypatch, package):
    """Without a GPU too, where there is nvcc."""
    try:
        compiler = kernels._compiler("cuda", (9, 0))
    except NativeError as reason:
        pytest.skip(f"CUDA SOURCES NOT COMPILED: {reason}")
    quickly = dataclasses.replace(
        compiler, command=(*compiler.command, "-Xcicc", "-O0", "-Xptxas", "-O0")
    )
    monkeypatch.setattr(kernels, "_compiler", lambda *_: quickly)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    libraries = []
    load = native.load

    def load_and_keep(*arguments, **options):
        libraries.append(load(*arguments, **options))
        return libraries[-1]

    monkeypatch.setattr(native, "load", load_and_keep)
    kernels.load(package, "cuda", (9, 0))
    [library] = libraries  # it needs no driver until it is called
    for function in FUNCTIONS[package] | {"probe", "error_string", "select_device"}:
        assert library[function]


# --- Calling


def test_a_kernel_is_not_handed_what_it_cannot_read():
    need(PACKAGE)
    strided, other = torch.rand(4, 6)[:, :3], torch.empty(4, device="meta")
    for value in (strided, other):
        with pytest.raises(
            ValueError, match="a kernel needs contiguous tensors on cpu, got one on"
        ):
            kernels.call(PACKAGE, "freq_encode", CPU, 1, value)
    with pytest.raises(TypeError, match="cannot take a str"):
        kernels.call(PACKAGE, "freq_encode", CPU, "float")


def test_a_type_without_a_kernel_is_an_error():
    need(PACKAGE)
    x = torch.rand(4, 3)
    with pytest.raises(
        RuntimeError, match="freq_encode of freqencoder failed on cpu: no kernel for this type"
    ):
        kernels.call(PACKAGE, "freq_encode", CPU, 0, x, None, x, 4, 3, 1)


def test_every_call_is_of_a_function_that_is_exported():
    for package, functions in FUNCTIONS.items():
        source = "".join(path.read_text() for path in (kernels.HERE / package).glob("*.py"))
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
    reason = NativeError("no compiler")
    load = kernels.load
    monkeypatch.setattr(
        kernels,
        "load",
        lambda package, *rest: load(package, *rest) if package == PACKAGE else reason,
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert kernels.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == [PACKAGE, "cpu", "C++"] and lines[1].split()[1:] == [
        "cpu",
        "PyTorch",
        "no",
        "compiler",
    ]

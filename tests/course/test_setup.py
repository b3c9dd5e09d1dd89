"""The environment: built once, rebuilt when something changed, and working in the end."""

import ast
import builtins
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from course import setup
from course.setup import SetupError

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"


def install_torchvision(packages: Path, code: str) -> None:
    """Install a torchvision 0.99 whose only line is `code` into a site-packages folder."""
    (packages / "torchvision").mkdir(parents=True)
    (packages / "torchvision" / "__init__.py").write_text(code)
    info = packages / "torchvision-0.99.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n")
    (info / "INSTALLER").write_text("pip\n")
    names = [
        "torchvision/__init__.py",
        *(f"{info.name}/{name}" for name in ("METADATA", "INSTALLER", "RECORD")),
    ]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))


def forget_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the import of torchvision after the test: transformers would take it for real."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision")


@pytest.fixture
def environment(tmp_path: Path) -> SimpleNamespace:
    """A virtual environment of its own that sees the packages of this one."""
    folder = tmp_path / "environment"
    venv.create(folder)
    python = setup.interpreter_path(folder)
    packages = Path(
        sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    )
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return SimpleNamespace(folder=folder, python=python, packages=packages)


def run_repair(environment: SimpleNamespace) -> subprocess.CompletedProcess:
    """`python -m course.setup --repair` in `environment`."""
    command = [str(environment.python), "-m", "course.setup", "--repair"]
    return subprocess.run(command, cwd=setup.ROOT, env=clean(), capture_output=True, text=True)


def clean() -> dict[str, str]:
    """The variables of this process without PYTHONPATH."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_a_torchvision_that_does_not_fit_is_named_in_one_line_and_removed(environment):
    install_torchvision(environment.packages, BROKEN)
    result = run_repair(environment)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert "torchvision 0.99 does not fit torch" in result.stdout
    assert (
        "operator torchvision::nms does not exist" in result.stdout
        and "removed it" in result.stdout
    )
    assert not (environment.packages / "torchvision").exists()


def test_packages_that_do_not_import_end_in_an_error(environment):
    (environment.packages / "diffusers").mkdir()
    (environment.packages / "diffusers" / "__init__.py").write_text(
        "raise ImportError('half a package')\n"
    )
    result = run_repair(environment)
    assert result.returncode == 1
    assert "half a package" in result.stderr and "constraints.txt" in result.stderr


def test_a_torchvision_that_fits_stays(tmp_path, monkeypatch):
    install_torchvision(tmp_path, "works = True\n")
    forget_torchvision(monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert setup.torchvision_problem() is None


def test_a_notebook_names_the_remedy(tmp_path, monkeypatch):
    install_torchvision(tmp_path, BROKEN)
    forget_torchvision(monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SetupError, match=r"does not fit.*python -m course\.setup --repair"):
        setup.show_versions()


def test_a_notebook_on_another_python_is_told_so(monkeypatch):
    monkeypatch.setattr(setup, "SHOWN_PACKAGES", ("platform", "no_such_package", "nor_this_one"))
    with pytest.raises(
        SetupError, match=r"has no no_such_package, nor_this_one\. Start it by `make lab`"
    ) as caught:
        setup.show_versions()
    assert sys.executable in str(caught.value)


def test_versions_are_shown(capsys, monkeypatch):
    monkeypatch.setattr(setup, "torchvision_problem", lambda: None)
    setup.show_versions()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "course",
        "python",
        *setup.SHOWN_PACKAGES,
        "runs",
    ]


# --- build, with pip replaced by records of the calls, and environments that have none


@pytest.fixture
def project(tmp_path, monkeypatch) -> SimpleNamespace:
    """A project folder with package lists, and the commands of `build`.

    `project.fail` names a command that fails.
    """
    root = tmp_path / "project"
    root.mkdir()
    for name in setup.PACKAGE_LISTS:
        (root / name).write_text("torch\n")
    state = SimpleNamespace(
        root=root, folder=root / ".venv", ran=[], fail=None, environments=[], pip=True
    )
    create = venv.create

    def create_without_pip(folder: str, clear: bool, with_pip: bool) -> None:
        assert with_pip
        create(folder, clear=clear, symlinks=True)
        state.ran.append("venv")
        state.pip = True

    def call(command: list[str], **options) -> int:
        state.environments.append(options.get("env"))
        if "--version" in command:
            return int(not state.pip)
        state.ran.append(command[2])
        return int(command[2] == state.fail)

    real = subprocess.Popen

    def popen(command: list[str], **options):
        if "pip" not in command:
            return real(command, **options)
        status = call(command, **options)
        lines = [b"Collecting torch\n", b"\n", b"  Downloading \xff\n"]
        return SimpleNamespace(stdout=lines, wait=lambda: status)

    monkeypatch.setattr(setup.venv, "create", create_without_pip)
    monkeypatch.setattr(setup.subprocess, "call", call)
    monkeypatch.setattr(setup.subprocess, "Popen", popen)
    return state


def test_build_makes_installs_and_checks_once(project):
    assert setup.build(project.root) == setup.interpreter_path(project.root / ".venv")
    assert project.ran == ["venv", "pip", "course.setup"]
    setup.build(project.root)
    assert project.ran == ["venv", "pip", "course.setup"]


def test_each_long_step_is_announced_before_it_begins(project, monkeypatch):
    """In a pipe too, where Python keeps what is printed until it is flushed."""
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
    last_lines = []

    def recorded(function):
        def call(*arguments, **options):
            last_lines.append(pipe.getvalue().decode().splitlines()[-1])
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(setup.venv, "create", recorded(setup.venv.create))
    monkeypatch.setattr(setup, "install", recorded(setup.install))
    setup.build(project.root)
    created, installed = last_lines
    assert created.startswith("Creating .venv") and installed.startswith("Installing the packages")


@pytest.mark.parametrize(
    "change", ["requirements.txt", "constraints.txt", "torchvision", "interrupted"]
)
def test_build_starts_again_when_something_changed(project, change):
    setup.build(project.root)
    if change.endswith(".txt"):
        (project.root / change).write_text("torch\nlpips\n")
    elif change == "torchvision":  # somebody installed it by hand
        (project.root / ".venv/lib/python3.11/site-packages/torchvision-0.99.dist-info").mkdir(
            parents=True
        )
    else:
        (project.root / ".venv" / "ready").unlink()
    setup.build(project.root)
    assert project.ran == ["venv", "pip", "course.setup", "pip", "course.setup"]


@pytest.mark.parametrize(
    ("fail", "message"),
    [("pip", "network and the free disk space"), ("course.setup", "do not work together")],
)
def test_a_failed_installation_is_not_taken_for_a_finished_one(project, fail, message):
    project.fail = fail
    with pytest.raises(SetupError, match=message):
        setup.build(project.root)
    project.fail = None
    setup.build(project.root)
    assert project.ran[-2:] == ["pip", "course.setup"]


def test_a_terminal_shows_what_pip_is_at_and_a_log_does_not(project, monkeypatch, capsys):
    setup.install(setup.interpreter_path(project.root / ".venv"), project.root)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(setup.sys.stdout, "isatty", lambda: True)
    setup.install(setup.interpreter_path(project.root / ".venv"), project.root)
    out = capsys.readouterr().out
    assert "\r   1 Collecting torch  " in out
    assert out.endswith("\r" + " " * 78 + "\r")  # the line is free for what comes next


def test_a_failed_installation_says_how_much_room_there_is(project, monkeypatch):
    project.fail = "pip"
    monkeypatch.setattr(
        setup.shutil, "disk_usage", lambda folder: SimpleNamespace(free=7_260_000_000)
    )
    with pytest.raises(SetupError, match=r"\(7\.3 GB here; about 6 GB are needed\)"):
        setup.build(project.root)


def test_an_interrupted_update_is_not_taken_for_a_finished_one(project, monkeypatch):
    """Packages of another list are half installed; then the list is as it was before."""
    setup.build(project.root)

    def interrupted(*_):
        raise KeyboardInterrupt

    (project.root / "requirements.txt").write_text("lpips\n")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(setup, "install", interrupted)
        setup.build(project.root)
    (project.root / "requirements.txt").write_text("torch\n")
    project.ran.clear()
    setup.build(project.root)
    assert project.ran == ["pip", "course.setup"]


def test_a_python_without_ensurepip_is_named_with_the_way_out(project, monkeypatch):
    def create(*_, **__):
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(setup.venv, "create", create)
    with pytest.raises(SetupError, match="could not install pip .*apt install python3-venv"):
        setup.build(project.root)


# --- Environments that cannot be used


def script(folder: Path, text: str) -> None:
    """Put a program in the place of the interpreter of `folder`."""
    python = setup.interpreter_path(folder)
    python.parent.mkdir(parents=True, exist_ok=True)
    python.unlink(missing_ok=True)
    python.write_text(text)
    python.chmod(0o755)


def half_built(folder: Path) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")


def without_configuration(folder: Path) -> None:
    venv.EnvBuilder(symlinks=True).create(folder)
    (folder / "pyvenv.cfg").unlink()


def dangling(folder: Path) -> None:
    venv.EnvBuilder(symlinks=True).create(folder)
    setup.interpreter_path(folder).unlink()
    setup.interpreter_path(folder).symlink_to(folder / "python3.11-that-was-removed")


def made_by_an_old_python(folder: Path) -> None:
    venv.EnvBuilder(symlinks=True).create(folder)
    script(folder, f'#!/bin/sh\necho "({str(folder)!r}, (3, 10, 12))"\n')


def of_another_machine(folder: Path) -> None:
    venv.EnvBuilder(symlinks=True).create(folder)
    script(folder, "MZ\0\0")


def without_standard_library(folder: Path) -> None:
    script(folder, "#!/bin/sh\necho \"No module named 'encodings'\" >&2\nexit 1\n")


def talkative(folder: Path) -> None:
    script(folder, "#!/bin/sh\necho hello\n")


def a_directory(folder: Path) -> None:
    setup.interpreter_path(folder).mkdir(parents=True)


UNUSABLE = {
    half_built: "its interpreter does not start",
    without_configuration: "its interpreter belongs to /",
    dangling: "its interpreter does not start",
    made_by_an_old_python: r"it was created by Python 3\.10\.12",
    of_another_machine: "its interpreter does not start",
    without_standard_library: "its interpreter does not start",
    talkative: "its interpreter does not start",
    a_directory: "its interpreter does not start",
}
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")


@posix
@pytest.mark.parametrize("spoil", UNUSABLE, ids=lambda function: function.__name__)
@pytest.mark.parametrize("finished", [False, True])
def test_an_environment_that_cannot_be_used_is_made_again(project, capsys, spoil, finished):
    """Also one that was ready before."""
    spoil(project.folder)
    if finished:
        (project.folder / "ready").write_text(setup.fingerprint(project.folder, project.root))
    assert setup.build(project.root) == setup.interpreter_path(project.folder)
    assert project.ran == ["venv", "pip", "course.setup"]
    assert setup.interpreter_problem(project.folder) is None
    out = capsys.readouterr().out
    assert re.search(
        rf"^\.venv cannot be used \({UNUSABLE[spoil]}.*\); it is created again\.$",
        out,
        re.MULTILINE,
    )


@posix
def test_an_environment_without_pip_is_made_again(project, capsys):
    venv.EnvBuilder(symlinks=True).create(project.folder)
    project.pip = False
    setup.build(project.root)
    assert project.ran == ["venv", "pip", "course.setup"]
    assert "(it has no working pip)" in capsys.readouterr().out


def test_pip_is_looked_for_in_the_environment_itself(tmp_path, environment):
    """The first one has none; the second one sees that of the tests."""
    venv.create(tmp_path / "bare", symlinks=os.name != "nt")
    assert setup.pip_problem(tmp_path / "bare") == "it has no working pip"
    assert setup.pip_problem(environment.folder) is None


def test_a_good_environment_of_ones_own_stays(project):
    """As README has it: PyTorch is installed into .venv before the set-up."""
    venv.EnvBuilder(symlinks=os.name != "nt").create(project.folder)
    (project.folder / "own").touch()
    setup.build(project.root)
    assert project.ran == ["pip", "course.setup"] and (project.folder / "own").exists()


def test_an_environment_of_another_python_is_filled_again(project):
    """Another Python was put into the ready one: its packages are not those that are there."""
    setup.build(project.root)
    configuration = project.folder / "pyvenv.cfg"
    configuration.write_text(configuration.read_text().replace("version = 3.", "version = 3.9"))
    setup.build(project.root)
    assert project.ran == ["venv", "pip", "course.setup", "pip", "course.setup"]


@pytest.mark.parametrize("obstacle", ["file", "dangling link", "folder that may not be written"])
def test_what_cannot_be_replaced_is_named(project, monkeypatch, obstacle):
    if obstacle == "file":
        project.folder.write_text("")
    elif obstacle == "dangling link":
        project.folder.symlink_to(project.root / "nowhere")
    else:

        def refused(*_, **__):
            raise PermissionError(13, "Permission denied", str(project.folder))

        monkeypatch.setattr(setup.venv, "create", refused)
    with pytest.raises(
        SetupError, match=r"could not create a virtual environment in .*\.venv \(.*\)\. Delete it"
    ):
        setup.build(project.root)
    assert project.ran == []


VARIABLES = {
    "PIP_USER": "1",
    "PIP_TARGET": "/elsewhere",
    "PIP_PREFIX": "/elsewhere",
    "PIP_ROOT": "/elsewhere",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_variables_that_send_packages_elsewhere_do_not_reach_pip(project, monkeypatch, name):
    monkeypatch.setenv(name, VARIABLES[name])
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple")
    setup.build(project.root)
    [environment] = [
        each for each in project.environments if each is not None and "--repair" not in each
    ][-1:]
    assert environment["PIP_USER"] == "0" and not set(VARIABLES) - {"PIP_USER"} & set(environment)
    assert environment["PIP_INDEX_URL"] == "https://example.org/simple"  # a mirror stays
    assert os.environ[name] == VARIABLES[name]


def test_pip_installs_into_the_environment_whatever_its_configuration_says(
    environment, tmp_path, monkeypatch
):
    """By pip itself, with a package that is no more than its metadata."""
    package = tmp_path / "nothing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(package, "w") as file:
        file.writestr("nothing.py", "")
        file.writestr(
            "nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n"
        )
        file.writestr(
            "nothing-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr("nothing-1.0.dist-info/RECORD", "nothing.py,,\n")
    for name in setup.PACKAGE_LISTS:
        (tmp_path / name).write_text("" if name.startswith("constraints") else f"{package}\n")
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[install]\nuser = true\nno-index = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "target"))
    assert setup.install(environment.python, tmp_path) == 0
    assert (environment.packages / "nothing.py").exists()


@pytest.mark.parametrize(("answer", "status"), [(None, 0), (SetupError("why"), 1)])
@pytest.mark.parametrize("arguments", [[], ["--repair"]])
def test_the_command(monkeypatch, capsys, arguments, answer, status):
    called = []

    def stand_in():
        called.append(True)
        if answer:
            raise answer

    monkeypatch.setattr(setup, "repair" if arguments else "build", stand_in)
    assert setup.main(arguments) == status and called
    assert capsys.readouterr().err == ("setup: why\n" if answer else "")


# --- Any Python 3


def imported_modules() -> list[Path]:
    """The files that `python -m course.setup` reads before it looks at the version."""
    paths, queue = [], [Path("course/__init__.py"), Path("course/setup.py")]
    while queue:
        path = queue.pop()
        paths.append(path)
        for node in ast.walk(ast.parse((setup.ROOT / path).read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.startswith("course.")
            ):
                queue.append(Path(*node.module.split(".")).with_suffix(".py"))
    return paths


@pytest.mark.parametrize("path", imported_modules(), ids=str)
def test_what_the_set_up_imports_is_syntax_of_python_3_5(path):
    tree = ast.parse((setup.ROOT / path).read_text(), feature_version=(3, 5))
    annotations = [
        node.annotation for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign)
    ]
    annotations += [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    parts = [part for annotation in annotations if annotation for part in ast.walk(annotation)]
    assert not [part for part in parts if isinstance(part, ast.BinOp)], "X | Y needs 3.10"
    generic = [
        part.value.id
        for part in parts
        if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name)
    ]
    assert not set(generic) & set(dir(builtins)), "list[X] needs 3.9"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)], (
        "x: X = ... needs 3.6"
    )


def interpreter(version: str) -> str:
    """A Python of that version on this machine, or the test is skipped."""
    places = [
        shutil.which(f"python{version}"),
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"),
    ]
    for python in filter(None, places):
        if subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            return str(python)
    pytest.skip(f"no Python {version} on this machine")


@pytest.fixture
def copy_of_the_set_up(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "course").mkdir(parents=True)
    for path in (*imported_modules(), *setup.PACKAGE_LISTS):
        shutil.copy(setup.ROOT / path, root / path)
    return root


@pytest.mark.parametrize("version", ["3.5", "3.6", "3.7", "3.8", "3.9", "3.10"])
def test_an_old_python_is_told_which_one_is_needed(copy_of_the_set_up, version):
    command = [interpreter(version), "-m", "course.setup"]
    result = subprocess.run(
        command, cwd=copy_of_the_set_up, env=clean(), capture_output=True, text=True
    )
    assert result.returncode == 1 and result.stdout == ""
    assert re.fullmatch(
        rf"setup: the course needs Python 3\.11 or newer, this is {version}\.\d+\. "
        r"Name another one, for example: make demo PYTHON=python3\.12, or without make: .*\n",
        result.stderr,
    )
    assert not (copy_of_the_set_up / ".venv").exists()


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.9", "3.10"])
def test_an_old_python_uses_an_environment_that_is_ready(copy_of_the_set_up, version):
    """Built once with PYTHON=python3.12; the next `make` has the old one again."""
    folder = copy_of_the_set_up / ".venv"
    venv.create(folder, symlinks=os.name != "nt")
    (folder / "ready").write_text(setup.fingerprint(folder, copy_of_the_set_up))
    command = [interpreter(version), "-m", "course.setup"]
    result = subprocess.run(
        command, cwd=copy_of_the_set_up, env=clean(), capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("version", [(3, 5, 0), (3, 8, 18), (3, 9, 6), (3, 10, 4), (3, 10, 99)])
def test_versions_before_the_oldest_are_refused(project, monkeypatch, version):
    monkeypatch.setattr(setup.sys, "version_info", version)
    with pytest.raises(SetupError, match=r"needs Python 3\.11 or newer, this is .*PYTHON="):
        setup.build(project.root)
    assert project.ran == []


def test_the_oldest_version_is_accepted(project, monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 11, 0))
    setup.build(project.root)
    assert project.ran[0] == "venv"


# --- Output that is not UTF-8

PRINT = "print('\\u2713 \\xe9 \\u2014 \\U0001f600 \\udcff')"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "cp932", "utf-8"])
@pytest.mark.parametrize("package", ["course", "pocket", "course.errors"])
def test_no_character_ends_a_program(encoding, package):
    """A check mark, an accent, a dash, an emoji, and the lone byte of a foreign file name."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", f"import {package}\n{PRINT}"]
    result = subprocess.run(command, cwd=setup.ROOT, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    text = result.stdout.decode(encoding)
    assert "\\udcff" in text and ("\u2713" in text) == (encoding == "utf-8")


def test_every_program_imports_a_package_that_cares_for_its_output():
    """What a person starts by `python -m`: modules that end by calling their own main."""
    programs = [
        path
        for folder in ("benchmarks", "course", "pocket", "task_3_DreamFusion")
        for path in (setup.ROOT / folder).rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    ]
    assert len(programs) > 15
    for path in programs:
        own = path.relative_to(setup.ROOT).parts[0] in ("course", "pocket")
        assert own or re.search(r"^from (course|pocket)[. ]", path.read_text(), re.MULTILINE), path


def test_requirements_are_all_pinned():
    """Each package a person asks for has its tested version in constraints.txt."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def requirements(name: str) -> list[Requirement]:
        lines = (
            line.split("#")[0].strip() for line in (setup.ROOT / name).read_text().splitlines()
        )
        return [Requirement(line) for line in lines if line]

    pins = {canonicalize_name(r.name): r for r in requirements("constraints.txt")}
    for requirement in requirements("requirements.txt"):
        pin = next(iter(pins[canonicalize_name(requirement.name)].specifier))
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), (
            f"{requirement} does not allow {pin.version}"
        )

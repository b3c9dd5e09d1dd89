"""The environment: built once, rebuilt when something changed, and working in the end."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

from course import setup
from course.setup import SetupError

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"


def install_torchvision(packages: Path, code: str) -> None:
    """Put a torchvision 0.99 whose only line is `code` into a site-packages folder, as pip would."""
    (packages / "torchvision").mkdir(parents=True)
    (packages / "torchvision" / "__init__.py").write_text(code)
    info = packages / "torchvision-0.99.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n")
    (info / "INSTALLER").write_text("pip\n")
    names = ["torchvision/__init__.py", *(f"{info.name}/{name}" for name in ("METADATA", "INSTALLER", "RECORD"))]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))


def forget_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not been imported, and what the test imports is gone afterwards: transformers would take it for real."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision")


@pytest.fixture
def environment(tmp_path: Path) -> SimpleNamespace:
    """A virtual environment of its own that sees the packages of this one."""
    folder = tmp_path / "environment"
    venv.create(folder)
    python = setup.python_of(folder)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return SimpleNamespace(folder=folder, python=python, packages=packages)


def run_mend(environment: SimpleNamespace) -> subprocess.CompletedProcess:
    """`python -m course.setup --mend` in `environment`."""
    command = [str(environment.python), "-m", "course.setup", "--mend"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=setup.ROOT, env=clean, capture_output=True, text=True)


def test_a_torchvision_that_does_not_fit_is_named_in_one_line_and_removed(environment):
    install_torchvision(environment.packages, BROKEN)
    result = run_mend(environment)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert "torchvision 0.99 does not fit torch" in result.stdout
    assert "operator torchvision::nms does not exist" in result.stdout and "removed it" in result.stdout
    assert not (environment.packages / "torchvision").exists()


def test_packages_that_do_not_import_end_in_an_error(environment):
    (environment.packages / "diffusers").mkdir()
    (environment.packages / "diffusers" / "__init__.py").write_text("raise ImportError('half a package')\n")
    result = run_mend(environment)
    assert result.returncode == 1
    assert "half a package" in result.stderr and "constraints.txt" in result.stderr


def test_a_torchvision_that_fits_stays(tmp_path, monkeypatch):
    install_torchvision(tmp_path, "works = True\n")
    forget_torchvision(monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert setup.torchvision_fault() is None


def test_a_notebook_names_the_cure(tmp_path, monkeypatch):
    install_torchvision(tmp_path, BROKEN)
    forget_torchvision(monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SetupError, match=r"does not fit.*python -m course\.setup --mend"):
        setup.show_versions()


def test_versions_are_shown(capsys, monkeypatch):
    monkeypatch.setattr(setup, "torchvision_fault", lambda: None)
    setup.show_versions()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["python", *setup.SHOWN, "runs"]


# --- build, with pip and venv replaced by records of the calls


@pytest.fixture
def project(tmp_path, monkeypatch) -> SimpleNamespace:
    """A project folder with package lists, and what `build` ran; `project.fail` names a command that fails."""
    for name in setup.LISTS:
        (tmp_path / name).write_text("torch\n")
    state = SimpleNamespace(root=tmp_path, ran=[], fail=None)

    def create(folder: Path, with_pip: bool) -> None:
        assert with_pip
        python = setup.python_of(folder)
        python.parent.mkdir(parents=True)
        python.touch()
        state.ran.append("venv")

    def run(command: list[str], **_) -> SimpleNamespace:
        state.ran.append(command[2])
        return SimpleNamespace(returncode=int(command[2] == state.fail))

    def popen(command: list[str], **_) -> SimpleNamespace:
        status = run(command).returncode
        return SimpleNamespace(stdout=["Collecting torch\n", "\n", "  Downloading torch\n"], wait=lambda: status)

    monkeypatch.setattr(setup.venv, "create", create)
    monkeypatch.setattr(setup.subprocess, "run", run)
    monkeypatch.setattr(setup.subprocess, "Popen", popen)
    return state


def test_build_makes_installs_and_checks_once(project):
    assert setup.build(project.root) == setup.python_of(project.root / ".venv")
    assert project.ran == ["venv", "pip", "course.setup"]
    setup.build(project.root)
    assert project.ran == ["venv", "pip", "course.setup"]


@pytest.mark.parametrize("change", ["requirements.txt", "constraints.txt", "torchvision", "interrupted"])
def test_build_starts_again_when_something_changed(project, change):
    setup.build(project.root)
    if change.endswith(".txt"):
        (project.root / change).write_text("torch\nlpips\n")
    elif change == "torchvision":  # somebody installed it by hand
        (project.root / ".venv/lib/python3.11/site-packages/torchvision-0.99.dist-info").mkdir(parents=True)
    else:
        (project.root / ".venv" / "ready").unlink()
    setup.build(project.root)
    assert project.ran == ["venv", "pip", "course.setup", "pip", "course.setup"]


@pytest.mark.parametrize(
    ("fail", "said"), [("pip", "network and the free disk space"), ("course.setup", "do not work together")]
)
def test_a_failed_installation_is_not_taken_for_a_finished_one(project, fail, said):
    project.fail = fail
    with pytest.raises(SetupError, match=said):
        setup.build(project.root)
    project.fail = None
    setup.build(project.root)
    assert project.ran[-2:] == ["pip", "course.setup"]


def test_a_terminal_shows_what_pip_is_at_and_a_log_does_not(project, monkeypatch, capsys):
    setup.install(setup.python_of(project.root / ".venv"), project.root)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(setup.sys.stdout, "isatty", lambda: True)
    setup.install(setup.python_of(project.root / ".venv"), project.root)
    assert "\r   1 torch  " in capsys.readouterr().out


def test_an_old_python_is_named_with_the_way_out(project, monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 10, 4))
    with pytest.raises(SetupError, match=r"too old.*3\.11 or newer.*PYTHON="):
        setup.build(project.root)


def test_a_python_without_venv_is_named_with_the_way_out(project, monkeypatch, capsys):
    def create(*_, **__):
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(setup.venv, "create", create)
    with pytest.raises(SetupError, match="apt install python3-venv"):
        setup.build(project.root)


def test_requirements_are_all_pinned():
    """Each package a person asks for has its tested version in constraints.txt."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def requirements(name: str) -> list[Requirement]:
        lines = (line.split("#")[0].strip() for line in (setup.ROOT / name).read_text().splitlines())
        return [Requirement(line) for line in lines if line]

    pins = {canonicalize_name(r.name): r for r in requirements("constraints.txt")}
    for asked in requirements("requirements.txt"):
        pin = next(iter(pins[canonicalize_name(asked.name)].specifier))
        assert pin.operator == "=="
        assert asked.specifier.contains(pin.version), f"{asked} does not allow {pin.version}"

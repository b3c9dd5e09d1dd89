"""A sandbox by a container of podman or docker, without network and rights.

Its image is empty: programs and libraries are those of this machine, mounted read-only. Only its
standard streams lead out of it, so that what a process prints comes with its errors, and stdout is
for its results. The kernel counts memory and processes: a process that exceeds the limit of memory
is killed, one that starts too many others cannot start more.
"""

import contextlib
import io
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from grading.sandbox.limits import NOBODY, SYSTEM, Job, Limits, Outcome, SandboxError
from grading.sandbox.supervise import Tree
from grading.sandbox.supervise import run as supervise

NAMES = ("podman", "docker")
IMAGE = "localhost/latent-diffusion-sandbox:1"
SHM = 64 << 20  # bytes of /dev/shm
TO_RESULTS = 'exec "$@" 3>&1 1>&2'  # results by stdout, prints by stderr
REMEDIES = {
    "podman": "`sudo apt install podman uidmap` sets it up for all users",
    "docker": "start it with `sudo systemctl start docker`, and let your user use it, or install "
    "podman, which needs no rights",
}


def reason_against(name: str) -> str:
    """Return why podman or docker does not work here and what helps, "" if it works."""
    if not shutil.which(name):
        return f"{name} is not installed: `sudo apt install {name}{'.io' * (name == 'docker')}`."
    job = Job(("/bin/true",), (), {}, Limits(), b"")
    container = f"grading-{secrets.token_hex(8)}"
    try:
        _build_image(name)
        _call(command(name, container, job, {}))
    except (OSError, subprocess.TimeoutExpired, SandboxError) as error:
        message = str(error)
    else:
        message = ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, SandboxError):
        _call([name, "rm", "--force", container])
    return message and f"{name} does not run ({message}): {REMEDIES[name]}."


def _call(command: list[str], data: bytes = b"") -> str:
    """Return what a command writes. Raises SandboxError with the last line of its errors."""
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise SandboxError((lines or ["no message"])[-1])
    return done.stdout.decode(errors="replace").strip()


def _build_image(name: str) -> None:
    """Build the empty image, unless it is there: folders to mount on, and nothing else."""
    with contextlib.suppress(SandboxError):
        _call([name, "image", "inspect", IMAGE])
        return
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for folder in ("proc", "sys", "dev", "tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
    _call([name, "import", "-", IMAGE], data.getvalue())


def command(name: str, container: str, job: Job, environment: Mapping[str, str]) -> list[str]:
    """Return the command line that runs a job in a container of this name.

    Raises:
        SandboxError: a path has a comma, which the option --mount cannot express.
    """
    limits = job.limits
    user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{NOBODY}:{NOBODY}"
    podman = ["--http-proxy=false", "--read-only-tmpfs=false"]  # it would pass proxies on
    podman += ["--userns=keep-id"] if os.getuid() else []
    paths = [Path(path) for path in SYSTEM if Path(path).exists()] + job.paths()
    mounts = []
    for path in dict.fromkeys(paths):
        if "," in str(path):
            raise SandboxError(f"{name} cannot mount {path}: its path has a comma.")
        mounts += ["--mount", f"type=bind,source={path},target={path},readonly"]
    return [
        *(name, "run", "--name", container, "--interactive", "--pull=never", "--log-driver=none"),
        *(podman if name == "podman" else []),
        *("--network=none", "--read-only", "--cap-drop=ALL", "--ipc=private", "--user", user),
        *("--security-opt=no-new-privileges", "--security-opt=label=disable"),
        *(f"--pids-limit={limits.processes}", f"--memory={limits.memory}"),
        *(f"--memory-swap={limits.memory}", f"--shm-size={SHM}"),
        *(f"--ulimit=fsize={limits.file_size}", "--ulimit=core=0", "--ulimit=nofile=1024"),
        *("--tmpfs", f"/tmp:rw,nosuid,nodev,size={limits.disk},mode=1777"),
        *("--hostname=sandbox", "--workdir=/tmp", *mounts),
        *(f"--env={key}={value}" for key, value in environment.items()),
        *(IMAGE, "/bin/sh", "-c", TO_RESULTS, "sh", *job.command),
    ]


def run(name: str, job: Job) -> Outcome:
    """Run a job in a container of podman or docker."""
    container = f"grading-{secrets.token_hex(8)}"
    containers: list[_Container] = []

    def tree(process: subprocess.Popen[bytes]) -> Tree:
        containers.append(_Container(process, name, container))
        return containers[0]

    outcome = supervise(
        job,
        lambda variables: command(name, container, job, variables),
        tree,
        results_on_stdout=True,
    )
    if containers[0].is_out_of_memory and not outcome.stopped:
        outcome.stopped = "memory"
    return outcome


class _Container(Tree):
    """The processes of a container. The kernel counts them."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, container: str) -> None:
        super().__init__(process)
        self.name = name
        self.container = container
        self.is_dead = self.is_out_of_memory = False

    def usage(self) -> tuple[int, int]:
        """Return nothing: the kernel counts and limits memory and processes."""
        return 0, 0

    def kill(self) -> None:
        """Remove the container, which kills all its processes, and wait for the client."""
        if self.is_dead:
            return
        state = [self.name, "inspect", "--format", "{{.State.OOMKilled}}", self.container]
        with contextlib.suppress(SandboxError):  # it was never there
            self.is_out_of_memory = _call(state) == "true"
            _call([self.name, "rm", "--force", "--volumes", self.container])
        self.is_dead = True
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

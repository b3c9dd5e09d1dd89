"""`python -m tests.gpu`, which is `make test-gpu`: tests for a CUDA device. Fails without one.

Words after it go to pytest: `python -m tests.gpu -k graph`.
"""

import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    """Runs the tests of this folder; returns the exit status."""
    if not torch.cuda.is_available():
        build = f"torch {torch.__version__}"
        print(
            f"test-gpu: there is no CUDA device, or {build} does not see it. Nothing was tested.",
            file=sys.stderr,
        )
        return 1
    print(f"on {torch.cuda.get_device_name()}, {torch.cuda.device_count()} of them", flush=True)
    return subprocess.run(
        [sys.executable, "-m", "pytest", str(HERE), *arguments], cwd=HERE.parent.parent
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

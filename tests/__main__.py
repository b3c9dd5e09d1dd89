"""`python -m tests`, which is `make test`: style, types and tests, each of them a test for pytest.

Words after it go to pytest: `python -m tests -k prompt`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    # Two processes, each on one thread: the suite is made for two cores.
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=ROOT).returncode)

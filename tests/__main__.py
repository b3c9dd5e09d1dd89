"""`python -m tests`, which is `make test`: style, types and tests; ends with pytest's summary.

Words after it go to pytest: `python -m tests -k prompt`. Fails if any of the checks fails, after running all of them.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    ["ruff", "check", "--quiet"],
    ["ruff", "format", "--check", "--quiet"],
    ["mypy"],
    # Two processes, each on one thread: the suite is made for two cores.
    ["pytest", "-n", "2", "--dist", "worksteal"],
)


def main() -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("COURSE_MODEL", None)  # the tests say themselves which model they mean
    failed = []
    for check in CHECKS:
        more = sys.argv[1:] if check[0] == "pytest" else []
        print("+", *check, *more, flush=True)
        if subprocess.run([sys.executable, "-m", *check, *more], cwd=ROOT, env=environment).returncode:
            failed.append(" ".join(check))
    if failed[:-1] or (failed and failed[0] != " ".join(CHECKS[-1])):
        print("failed:", ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# Builds the container, once: Python, the packages, and the folder that answers may read.
set -euo pipefail
apt-get update
apt-get install -y --no-install-recommends bubblewrap
python=""
for name in python3.13 python3.12 python3.11 python3; do
    if command -v "$name" && "$name" -c "import sys; sys.exit(sys.version_info < (3, 11))"; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    apt-get install -y --no-install-recommends python3.11 python3.11-venv
    python=python3.11
fi
cd /autograder/source
apt-get install -y --no-install-recommends "$python-venv" || true
"$python" -m course.setup
.venv/bin/python -m grading.autograder --prepare /autograder
# Answers run as another user, who may read the packages and the student copy, and no solution.
chmod -R go-rwx /autograder/source
chmod go+x /autograder/source
chmod -R go+rX /autograder/source/.venv /autograder/base

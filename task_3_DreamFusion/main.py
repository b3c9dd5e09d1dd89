"""Text to 3D: `python main.py --text "a hamburger"`.

A text-to-image model guides a field of densities and colors until it looks like the text prompt
from all sides (DreamFusion). The results are a clip, a mesh and a page that shows it, in the
workspace. It works on a GPU, and in some minutes on a CPU; with the model of the course it needs no
network. README.md in this folder explains how it works, and what to try when it fails.
"""

import sys
from pathlib import Path

if not __package__:  # Started as a script. Its folder would hide other packages, such as `kernels`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from course.errors import CourseError
from task_3_DreamFusion import command_line
from task_3_DreamFusion.nerf.options import SettingError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    try:
        request = command_line.parse(arguments, __doc__)
        from task_3_DreamFusion import runs  # slow to import: --help does without it

        if request.run.deterministic:
            runs.make_deterministic()
        return runs.run_many(request) if request.run.prompts else runs.run_one(request)
    except CourseError as error:
        option = "--" if isinstance(error, SettingError) else ""
        print(f"error: {option}{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: --resume continues from the last checkpoint, if any", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

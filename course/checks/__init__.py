"""Self-checks of the exercises, one module a lesson.

    from course.checks import task_1_2 as checks

Each check says in one line that the work is right, or raises CheckFailed with what is wrong and
where to look. It tests the result, not how the code was written.
"""

from course.checks.common import CheckFailed, Result, listeners

__all__ = ["CheckFailed", "Result", "listeners"]

"""Self-checks of the exercises, one module a lesson.

    from course.checks import task_1_2 as checks

Each check says in one line that the work is right, or raises CheckFailed with what is wrong and
where to look. It tests the result, not how the code was written. `exercises()` is the rubric.
"""

from course.checks.common import CheckFailed, Result, listeners
from course.checks.rubric import Exercise, exercises

__all__ = ["CheckFailed", "Exercise", "Result", "exercises", "listeners"]

"""Attacks of students on the grader, as answers to exercise `EXERCISE`, and what becomes of each.

An attack that reaches what it is after raises an error with the word `SUCCEEDED`.
"""

from tests.grading.attacks.forms import EXERCISE, RIGHT, SUCCEEDED, Attack
from tests.grading.attacks.processes import NETWORK, PROCESSES, RESOURCES
from tests.grading.attacks.replaced import HARMLESS, REPLACED
from tests.grading.attacks.results import RESULTS
from tests.grading.attacks.secrets import LEFT_BEHIND, SECRETS

__all__ = ["ALL", "EXERCISE", "HARMLESS", "RIGHT", "SUCCEEDED", "Attack"]

ALL = [
    *(*LEFT_BEHIND, *RESOURCES, *NETWORK, *PROCESSES, *SECRETS, *RESULTS, *REPLACED, *HARMLESS),
]

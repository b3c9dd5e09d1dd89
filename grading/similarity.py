"""Answers of two students that are more alike than chance: what a teacher should compare.

An answer counts by the structure of its code: the syntax tree without names, values, comments and
docstrings, cut into runs of a few nodes. Runs that the cell with the official solution has are left
out, so two answers are not alike because both are close to it; and a run counts the less, the more
students have it. A similar structure is a reason to look, never a proof.
"""

import ast
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

RUN = 6  # nodes
MIN_RUNS = 15  # that the official cell does not have: shorter answers say nothing
ALIKE = 0.7  # the share of their structure, weighted, that similar answers have in common
MAX_LENGTH = 50_000  # characters of an answer

Runs = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class Match:
    """An exercise that two students answered alike.

    first, second: the sources. share: in (0, 1], of the structure. bits: how rare that structure is
    in the class.
    """

    exercise: str
    first: str
    second: str
    share: float
    bits: float

    @property
    def is_copy(self) -> bool:
        """Whether the sources are the same, with names and comments."""
        return self.first.split() == self.second.split()


@dataclass
class Pair:
    """Two students with answers that are alike, the rarest match first."""

    first: str
    second: str
    matches: list[Match] = field(default_factory=list)

    @property
    def bits(self) -> float:
        """How much the two share, in all exercises."""
        return sum(match.bits for match in self.matches)


def node_names(tree: ast.AST) -> Iterator[str]:
    """Yield what each node of a tree is, in the order of the source."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring, or the `...` of a stub
        if isinstance(node, ast.Constant):
            yield "number" if isinstance(node.value, int | float) else "constant"
        elif isinstance(node, ast.Attribute):
            yield f".{node.attr}"  # mostly a function of a library, which says what is done
        else:
            yield type(node).__name__
        children = list(ast.iter_child_nodes(node))
        stack += [child for child in reversed(children) if not isinstance(child, ast.expr_context)]


def code_runs(source: str) -> Runs:
    """Return the runs of `RUN` nodes in a source; none if it is not Python, or too long."""
    if len(source) > MAX_LENGTH:
        return frozenset()
    try:
        names = list(node_names(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    return frozenset(tuple(names[i : i + RUN]) for i in range(len(names) - RUN + 1))


def similar_answers(
    exercise: str, answers: Mapping[str, str], official: str
) -> Iterator[tuple[str, str, Match]]:
    """Yield (student, student, match) for answers to one exercise that are alike.

    answers: the sources by student. official: the source with the official solution.
    """
    given = code_runs(official)
    own = {student: code_runs(source) - given for student, source in answers.items()}
    own = {student: runs for student, runs in own.items() if len(runs) >= MIN_RUNS}
    counts = Counter(itertools.chain.from_iterable(own.values()))
    bits = {run: math.log2(1 + len(own) / count) for run, count in counts.items()}
    total = {student: sum(bits[run] for run in runs) for student, runs in own.items()}
    for first, second in itertools.combinations(sorted(own), 2):
        if min(total[first], total[second]) < ALIKE * max(total[first], total[second]):
            continue  # too different in length
        shared = sum(bits[run] for run in own[first] & own[second])
        share = shared / (total[first] + total[second] - shared)
        if share >= ALIKE:
            match = Match(exercise, answers[first], answers[second], share, shared)
            yield first, second, match


def similar_pairs(
    answers: Mapping[str, Mapping[str, str]], official: Mapping[str, str]
) -> list[Pair]:
    """Return the pairs of students with answers that are alike, the most suspicious first.

    answers: by student, then by exercise. official: the cell with the official solution, by
    exercise.
    """
    pairs: dict[tuple[str, str], Pair] = {}
    for exercise, source in official.items():
        given = {
            student: by_exercise[exercise]
            for student, by_exercise in answers.items()
            if exercise in by_exercise
        }
        for first, second, match in similar_answers(exercise, given, source):
            pair = pairs.setdefault((first, second), Pair(first, second))
            pair.matches.append(match)
    for pair in pairs.values():
        pair.matches.sort(key=lambda match: -match.bits)
    return sorted(pairs.values(), key=lambda pair: -pair.bits)

"""What a teacher has to look at by eye in a graded class."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from course.checks import exercises
from course.errors import shorten
from grading.exhibits import Exhibit
from grading.scores import Score, ScoreSheet, folder_name
from grading.similarity import Pair
from grading.submissions import Submission

PAGE = "index.html"
PAIRS = "similar.html"
FREE = {  # exercises that end in an image or clip of the student's choice, and what it is
    "1.3 (i)": "Own images under control",
    "1.3 challenge 2": "Images from a formula",
    "2.1 (d)": "Panoramas",
    "3 (n)": "Objects",
    "3 challenge 1": "Best objects",
}
COPY = "of the student copy"  # in what `submissions` says about versions
EXCERPT = 240  # characters of a written answer
REASONS = {
    "Written answers": "Points come from you: put them into overrides.csv.",
    "Attacks and code that was stopped": (
        "Code that the rules do not allow, or that a limit stopped. Most of it is a mistake; read "
        "the answer."
    ),
    "Problems with files": "What the grader noticed while it read the submissions.",
    "Other versions": "Made with another version of the student copy than this grader's.",
    "Similar answers": "Pairs of students whose code has the same structure, side by side.",
    "Not graded": "The grader could not decide: put the points into overrides.csv.",
    "Free choice": "Results of the student's own choice: the grader cannot tell whose idea it is.",
}


@dataclass
class Graded:
    """A submission with its scores (after overrides) and what its page shows of its images."""

    sheet: ScoreSheet
    submission: Submission
    exhibits: list[Exhibit] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """The name of its folder below OUT."""
        return folder_name(self.sheet.student, self.sheet.path)

    def address(self, exercise: str = "") -> str:
        """Return the address of its page, or of an exercise there, from OUT."""
        address = f"{self.folder}/{PAGE}"
        return f"{address}#{anchor(exercise)}" if exercise else address


@dataclass(frozen=True)
class Entry:
    """A place to look at: its address from OUT, whose and which exercise it is, and a detail."""

    address: str
    name: str
    place: str = ""
    detail: str = ""


@dataclass
class Task:
    """Entries of one kind, and why a person has to look at them."""

    title: str
    entries: list[Entry]

    @property
    def reason(self) -> str:
        return REASONS[self.title]


def anchor(exercise: str) -> str:
    """Return the id of an exercise's element in a student's page, such as "e-1.2-c"."""
    return "e-" + "-".join(exercise.replace("(", "").replace(")", "").split())


def kind_of(graded: Graded, score: Score) -> str | None:
    """Return the key of REASONS under which a score is listed, None if nobody needs to look."""
    if score.comment is not None:
        return None  # a teacher has decided
    if exercises()[score.exercise].tier == "written":
        return "Written answers" if score.exercise in graded.submission.written else None
    if score.status in ("stopped", "not allowed"):
        return "Attacks and code that was stopped"
    if score.status == "not graded":
        return "Not graded"
    if score.exercise in FREE and score.points > 0:
        return "Free choice"
    return None


def detail_of(graded: Graded, score: Score) -> str:
    """Return an excerpt of a written answer, or the message of the grader."""
    text = graded.submission.written.get(score.exercise, score.message)
    return shorten(" ".join(text.split()), EXCERPT)


def review_tasks(graded: Sequence[Graded], pairs: Sequence[Pair], version: str) -> list[Task]:
    """Return what to look at, without empty tasks; `version` is that of this course.

    Entries are in the order of the class; written answers are sorted by exercise.
    """
    tasks = {title: Task(title, []) for title in REASONS}
    for each in graded:
        student = each.sheet.student
        for score in each.sheet.scores:
            if kind := kind_of(each, score):
                id = score.exercise
                entry = Entry(each.address(id), student, id, detail_of(each, score))
                tasks[kind].entries.append(entry)
        for problem in each.sheet.problems:
            if COPY in problem:
                continue  # among other versions
            entry = Entry(each.address(), student, detail=problem)
            tasks["Problems with files"].entries.append(entry)
        if each.sheet.version != version and (each.sheet.version or each.submission.answers):
            text = f"version {each.sheet.version or 'unknown'}, this is {version}"
            tasks["Other versions"].entries.append(Entry(each.address(), student, detail=text))
    names = {each.folder: each.sheet.student for each in graded}
    for i, pair in enumerate(pairs, 1):
        similar = ", ".join(match.exercise for match in pair.matches)
        label = f"{names[pair.first]} and {names[pair.second]}"
        entry = Entry(f"{PAIRS}#pair-{i}", label, detail=similar)
        tasks["Similar answers"].entries.append(entry)
    tasks["Written answers"].entries.sort(key=lambda entry: entry.address.partition("#")[2])
    return [task for task in tasks.values() if task.entries]

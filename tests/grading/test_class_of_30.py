"""A class of 30 is read as it was written, in the layouts of Canvas, Moodle and plain folders."""

import pytest

from grading import submissions
from tests.grading import class_of_30


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """The class by name, and its folder."""
    folder = tmp_path_factory.mktemp("class")
    return {student.name: student for student in class_of_30.build(folder)}, folder


def test_every_student_has_one_submission(group):
    students, folder = group
    assert [files.student for files in submissions.find(folder)] == sorted(students)
    assert len(students) == 30


@pytest.mark.weekly
def test_the_answers_are_what_each_student_wrote(group):
    students, folder = group
    for files in submissions.find(folder):
        student, submission = students[files.student], submissions.read(files)
        wanted = {id for id in student.solved if class_of_30.exercises()[id].check}
        assert wanted <= set(submission.answers), (student, submission.problems)
        if student.kind in ("right", "empty"):
            assert wanted == set(submission.answers), student
        if student.kind == "version" or (student.kind == "broken" and not student.solved):
            assert submission.problems, student

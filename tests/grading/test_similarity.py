"""Which answers count as similar, and which do not."""

import pytest

from grading.similarity import Match, code_runs, similar_pairs

STUB = "def loss(network, x, t):\n    noise = torch.randn_like(x)\n"
OFFICIAL = STUB + "    return (network(x + t * noise, t) - noise).square().mean()\n"
OWN = STUB + (
    "    noisy = torch.lerp(x, noise, t)\n"
    "    gap = network(noisy, t).sub(noise)\n"
    "    for step in range(3):\n"
    "        gap = gap.clamp(-9, 9) if step else gap.abs()\n"
    "    return torch.linalg.vector_norm(gap, dim=-1).pow(2).sum() / gap.numel()\n"
)
DISGUISED = (
    (
        '"""My own idea."""\n'
        + OWN.replace("gap", "delta").replace("noisy", "inputs").replace("step", "k")
    )
    .replace("-9, 9", "-7.5, 7.5")
    .replace("    for", "\n    # loop\n    for")
)
OTHER = STUB + (
    "    mixed = x * (1 - t) + noise * t\n"
    "    values = [float(v) for v in network(mixed, t).flatten()]\n"
    "    target = noise.flatten().tolist()\n"
    "    return torch.tensor([(a - b) ** 2 for a, b in zip(values, target)]).mean()\n"
)


def pairs(**answers: str) -> list[tuple[str, str]]:
    by_student = {student: {"0 (e)": source} for student, source in answers.items()}
    return [(pair.first, pair.second) for pair in similar_pairs(by_student, {"0 (e)": OFFICIAL})]


def test_other_names_values_and_comments_do_not_hide_a_copy():
    assert pairs(ada=OWN, bob=DISGUISED, eve=OTHER) == [("ada", "bob")]


def test_the_official_solution_is_nobodys_copy():
    renamed = OFFICIAL.replace("noise", "eps").replace("loss", "my_loss")
    assert pairs(ada=OFFICIAL, bob=renamed, eve=OFFICIAL) == []


def test_short_answers_and_stubs_say_nothing():
    short = STUB + "    return (noise - network(x + t * noise, t)).pow(2).mean()\n"
    assert pairs(ada=short, bob=short) == []
    assert pairs(ada=STUB, bob=STUB) == []


def test_different_answers_are_not_similar():
    assert pairs(ada=OWN, eve=OTHER) == []


def test_rare_pairs_come_first():
    """A structure that many have says less than one that two share."""
    rare = OTHER.replace("** 2", "** 4 + abs(a)")
    answers = {f"s{i}": OWN for i in range(8)} | {"y": rare, "z": rare}
    suspects = pairs(**answers)
    assert suspects[0] == ("y", "z")
    assert len(suspects) == 1 + 8 * 7 // 2


def test_pairs_add_up_over_exercises():
    answers = {
        "ada": {"0 (e)": OWN, "0 (f)": OTHER},
        "bob": {"0 (e)": DISGUISED, "0 (f)": OTHER},
        "eve": {"0 (e)": OWN},
    }
    first, *_ = similar_pairs(answers, {"0 (e)": OFFICIAL, "0 (f)": OFFICIAL})
    assert (first.first, first.second) == ("ada", "bob")
    assert {match.exercise for match in first.matches} == {"0 (e)", "0 (f)"}
    assert {match.exercise: match.is_copy for match in first.matches} == {
        "0 (e)": False,
        "0 (f)": True,
    }


@pytest.mark.parametrize(
    "source",
    ["def f(:", "x = " + "(" * 5000 + ")" * 5000, "x = " + "-" * 20_000 + "1", "\0", "a" * 60_000],
)
def test_sources_that_are_no_python_have_no_structure(source: str):
    assert code_runs(source) == frozenset()


def test_white_space_does_not_make_a_copy_another_text():
    assert Match("0 (e)", OWN, OWN.replace("\n", "  \n\n"), 1.0, 1.0).is_copy
    assert not Match("0 (e)", OWN, DISGUISED, 1.0, 1.0).is_copy

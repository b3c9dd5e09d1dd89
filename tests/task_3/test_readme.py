"""Task 3's README says of each option what the programs say of it: run this file to write the tables anew.

python -m tests.task_3.test_readme
"""

import argparse
import re

import pytest

from course import notebooks
from task_3_DreamFusion import sds_2d
from task_3_DreamFusion.command_line import build_parser

README = notebooks.ROOT / "task_3_DreamFusion" / "README.md"


def rows(group: argparse._ArgumentGroup) -> list[str]:
    """A line of a table for each option: how it is written, and its help."""
    found = []
    for action in group._group_actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        value = ""
        if action.nargs != 0:
            metavar = action.metavar or (
                "|".join(map(str, action.choices)) if action.choices else ""
            )
            value = " " + (" ".join(metavar) if isinstance(metavar, tuple) else metavar)
        names = ", ".join(f"`{flag}`" for flag in action.option_strings)
        written = names if not value.strip() else f"`{', '.join(action.option_strings)}{value}`"
        found.append(f"| {written.replace('|', chr(92) + '|')} | {action.help} |")
    return found


def main_table() -> str:
    """The options of main.py, group by group."""
    parts = []
    for group in build_parser()._action_groups:
        if lines := rows(group):
            title = group.title or ""
            parts.append(
                f"**{title[0].upper()}{title[1:]}**\n\n| option | |\n| --- | --- |\n"
                + "\n".join(lines)
            )
    return "\n\n".join(parts)


def sds_table() -> str:
    [lines] = filter(None, map(rows, sds_2d.parser()._action_groups))
    return "\n".join(lines)


PLACES = {
    "main": (r"(?<=shows the same in the terminal\.\n\n).*?(?=\n\n## )", main_table),
    "sds_2d": (
        r"(?<=\| option of `sds_2d` \| what it does \|\n\| --- \| --- \|\n).*?(?=\n\n## )",
        sds_table,
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_options_are_those_of_the_programs(name):
    pattern, table = PLACES[name]
    written = re.search(pattern, README.read_text(), flags=re.DOTALL)
    assert written and written[0] == table(), (
        "python -m tests.task_3.test_readme writes the tables anew"
    )


def test_every_option_that_the_text_names_exists():
    text = README.read_text().replace("--max_restarts", "").replace("--logdir", "")
    known = {
        flag
        for parser in (build_parser(), sds_2d.parser())
        for action in parser._actions
        for flag in action.option_strings
    }
    named = set(re.findall(r"--[a-z_]\w*(?:-\w+)?", text))
    assert named <= known and {flag for flag in known if flag.startswith("--")} <= named


if __name__ == "__main__":
    whole = README.read_text()
    for pattern, table in PLACES.values():
        whole = re.sub(pattern, lambda _, table=table: table(), whole, flags=re.DOTALL)
    README.write_text(whole)

"""`python -m publish.options`: write the option tables of task 3 from its programs.

A table stands between `<!--options PROGRAM-->` and `<!---->`, which GitHub does not show.
"""

import argparse
import re
import sys
from collections.abc import Callable

from course.figures import ROOT
from task_3_DreamFusion import command_line, sds_2d

OPTIONS = ROOT / "task_3_DreamFusion" / "OPTIONS.md"
TABLE = re.compile(r"(?<=<!--options )(\w+)-->\n.*?(?=<!---->)", flags=re.DOTALL)
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "main": command_line.build_parser,
    "sds_2d": sds_2d.parser,
}


def option_row(action: argparse.Action) -> str:
    """Return the row of a table for an option: how it is written, and its help."""
    meaning = (action.help or "") % {"default": action.default}
    value = ""
    if action.nargs != 0:
        choices = "|".join(map(str, action.choices or ()))
        metavar = action.metavar or choices
        value = " ".join(metavar) if isinstance(metavar, tuple) else metavar
    if value:
        option = f"`{', '.join(action.option_strings)} {value}`"
    else:
        option = ", ".join(f"`{flag}`" for flag in action.option_strings)
    return f"| {option.replace('|', chr(92) + '|')} | {meaning} |"


def option_tables(parser: argparse.ArgumentParser) -> str:
    """Return a table in Markdown for each group of options, with the title of the group."""
    tables = []
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
        if actions:
            title = (group.title or "").capitalize()
            heading = f"**{title}**\n\n" if title != "Options" else ""
            rows = "\n".join(map(option_row, actions))
            tables.append(f"{heading}| option | meaning |\n| --- | --- |\n{rows}\n")
    return "\n".join(tables)


def fill_tables(text: str) -> str:
    """Return a document with its tables of options filled."""
    return TABLE.sub(lambda match: f"{match[1]}-->\n\n{option_tables(PARSERS[match[1]]())}\n", text)


def main() -> int:
    OPTIONS.write_text(fill_tables(OPTIONS.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

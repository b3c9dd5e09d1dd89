"""The option tables of task 3 are those of its programs."""

import argparse
import re

from publish import options

FOLDER = options.OPTIONS.parent


def test_the_tables_are_those_of_the_programs():
    text = options.OPTIONS.read_text(encoding="utf-8")
    assert text.count("<!--options ") == len(options.PARSERS)
    assert options.fill_tables(text) == text, "python -m publish.options writes the tables"


def test_every_option_in_the_text_exists():
    texts = [(FOLDER / name).read_text(encoding="utf-8") for name in ("README.md", "OPTIONS.md")]
    text = "".join(texts).replace("--max_restarts", "").replace("--logdir", "")
    known = {
        flag
        for parser in options.PARSERS.values()
        for action in parser()._actions
        for flag in action.option_strings
    }
    named = set(re.findall(r"(?<!<!)--[a-z_]\w*(?:-\w+)?", text))
    assert named <= known and {flag for flag in known if flag.startswith("--")} <= named


def test_rows_of_options():
    parser = argparse.ArgumentParser()
    for row, action in {
        "| `-O`, `--half` | use half precision |": parser.add_argument(
            "-O", "--half", action="store_true", help="use half precision"
        ),
        r"| `--space pixels\|latents` | where |": parser.add_argument(
            "--space", choices=("pixels", "latents"), help="where"
        ),
        "| `--t_range LOW HIGH` | range (default: 3) |": parser.add_argument(
            "--t_range",
            nargs=2,
            metavar=("LOW", "HIGH"),
            default=3,
            help="range (default: %(default)s)",
        ),
    }.items():
        assert options.option_row(action) == row

"""Options of the command lines of pocket: what is refused, with its value and what is allowed."""

import argparse
import json
import os
import re
from pathlib import Path

import pytest

from pocket import arguments


def refused(parse, text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "nan", "1e3", "101", "9" * 5000])
def test_whole_numbers_out_of_range_are_refused(text):
    refused(
        arguments.integer(1, 100),
        text,
        f"must be a whole number from 1 to 100, got {re.escape(repr(text))}",
    )


def test_whole_numbers_at_the_ends_of_the_range():
    assert [arguments.integer(1, 1000)(text) for text in ("1", " 7 ", "1000")] == [1, 7, 1000]
    assert arguments.integer(0)("999999999999") == 999_999_999_999
    refused(arguments.integer(1_000), "999", "of at least 1,000, got '999'")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.5", "2.01", "", "x", "1e999"])
def test_numbers_out_of_range_are_refused(text):
    refused(arguments.number(0, 2), text, f"must be a number from 0 to 2, got '{text}'")


def test_numbers_at_the_ends_of_the_range():
    assert [arguments.number(0, 2)(text) for text in ("0", "1e-3", "2")] == [0, 0.001, 2]
    refused(arguments.number(0.5), "0.4", "of at least 0.5, got '0.4'")
    assert arguments.number(0.5)("1e9") == 1e9


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    "text", ["", " ", "file", "file/x", "file/x/y", "dangling", "loop", "loop/x", "/dev/null"]
)
def test_what_is_no_folder_is_refused(here, text):
    refused(arguments.folder, text, "must name a folder, got ")


@pytest.mark.parametrize(
    "text", [".", "folder", "link", "link/new", "new/deep", "../elsewhere", "\udcff"]
)
def test_folders_that_are_there_or_can_be_created(here, text):
    assert arguments.folder(text) == Path(text)
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    "text", ["file", "folder", "null.json", "list.json", "braces.json", "deep.json", "dangling", ""]
)
def test_files_that_hold_no_results_are_refused(here, text):
    contents = {"null": "null", "list": "[]", "braces": "{}", "deep": "[" * 100_000}
    for name, content in contents.items():
        (here / f"{name}.json").write_text(content)
    refused(arguments.results_file, text, "must name a file of results or a new file, got ")


def test_files_of_results(here):
    (here / "rows.json").write_text(json.dumps({"rows": []}))
    for text in ("rows.json", "new.json", "folder/new.json", os.path.join("new", "x.json")):
        assert arguments.results_file(text) == Path(text)
    refused(arguments.results_file, "file/x.json", "must name a folder")

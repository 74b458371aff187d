"""No bad input is a traceback: each gets one sentence that says what is wrong, where, and what to do.

`python tools/bad_inputs.py` writes them all to docs/bad_inputs.md.
"""

import importlib
import re
import tempfile
import time
from pathlib import Path

import pytest
from bad import ROWS, Row, sentence

MODULES = "bad_models bad_pictures bad_settings bad_drawing bad_workshop bad_captioning bad_tools"
for module in MODULES.split():
    importlib.import_module(module)

PAGE = Path(__file__).parent.parent / "docs" / "bad_inputs.md"
LIBRARIES = ("Traceback", "Errno", "codec can't", "Error(", "object at 0x", "pydantic", "recursion")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_a_bad_input_gets_one_sentence(row: Row, tmp_path: Path):
    started = time.monotonic()
    told = sentence(row, tmp_path)
    assert time.monotonic() - started < 20
    assert row.says in told and row.names in told
    assert told[-1] in ".?" and told[0].strip() and len(told) < 600
    assert told.isprintable() and not any(word in told for word in LIBRARIES)


def test_there_are_enough_of_them_and_no_two_are_one():
    assert len(ROWS) >= 80 and len({row.name for row in ROWS}) == len(ROWS)


def test_the_page_of_them_is_up_to_date():
    assert PAGE.read_text("utf-8") == table(), "run: python tools/bad_inputs.py"


def table() -> str:
    """The corpus as Markdown."""
    lines = [
        "# Bad inputs, and the sentence each gets",
        "",
        f"{len(ROWS)} inputs that `tests/bad_*.py` make, each handed in where a person would; written by `tools/bad_inputs.py`.",
        "",
    ]
    for group in dict.fromkeys(row.group for row in ROWS):
        lines += [f"## {group.capitalize()}", "", "| input | sentence |", "|---|---|"]
        for row in (row for row in ROWS if row.group == group):
            with tempfile.TemporaryDirectory() as folder:
                told = sentence(row, Path(folder))
            told = re.sub(r"(TOML file: ).*;", r"\1…;", told)  # Python's own words change
            told = told if len(told) < 300 else f"{told[:100]}…{told[-100:]}"
            lines.append(
                "| {} | {} |".format(
                    *(text.replace("|", r"\|").replace("<", "&lt;") for text in (row.name, told))
                )
            )
        lines.append("")
    return "\n".join(lines)

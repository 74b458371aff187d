"""No bad input is a traceback: each gets one sentence that says what is wrong, where, and what to do.

`python tests/test_bad_inputs.py` prints the table that docs/bad_inputs.md is.
"""

import importlib
import tempfile
import time
from pathlib import Path

import pytest
from bad import ROWS, Row, sentence

for module in ("bad_models", "bad_pictures", "bad_settings"):
    importlib.import_module(module)

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


def table() -> str:
    """The corpus as Markdown."""
    lines = ["# Bad inputs, and the sentence each gets", ""]
    for group in dict.fromkeys(row.group for row in ROWS):
        lines += [f"## {group.capitalize()}", "", "| input | sentence |", "|---|---|"]
        for row in (row for row in ROWS if row.group == group):
            with tempfile.TemporaryDirectory() as folder:
                told = sentence(row, Path(folder)).replace("|", r"\|").replace("<", "&lt;")
            lines.append(f"| {row.name} | {told} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), end="")

"""Writes docs/bad_inputs.md: every input of tests/bad_*.py with the sentence that a person gets for it."""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORA_SD_HOME"] = home
        from test_bad_inputs import PAGE, table

        PAGE.write_text(table(), encoding="utf-8")

"""alpha of each layer from PEFT's config in a header, as in files whose `up` is not folded.

PEFT takes its `alpha_pattern` for regular expressions; those of a stranger's file could run for years, so that here they are
layer names in which only `.*` stands for anything.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..paths import shown
from .inspection import is_alpha

KEY = "lora_adapter_metadata"
NAME = re.compile(r"\^?(\.\*)?([\w.]|\\\.)+(\.\*([\w.]|\\\.)+){0,2}\$?")
MOST_PATTERNS = 5000


class PeftConfig:
    """`alpha(layer, rank)` of a file with this metadata; ValueError for a config that is none."""

    def __init__(self, path: Path, metadata: Mapping[str, str]):
        self.path = path
        try:
            self.values = json.loads(metadata.get(KEY, "{}"))
        except (ValueError, RecursionError) as error:
            raise self._wrong("is not JSON") from error
        if not isinstance(self.values, dict):
            raise self._wrong("is no table")
        self.patterns: dict[str, list[tuple[re.Pattern, float]]] = {}

    def alpha(self, layer: str, rank: int) -> float:
        """The rank where the config has none."""
        part, path = layer.split(".", 1)
        if part not in self.patterns:
            self.patterns[part] = self._compiled(self.values.get(f"{part}.alpha_pattern", {}))
        of_all = self.values.get(f"{part}.lora_alpha", rank)
        alpha = next((value for pattern, value in self.patterns[part] if pattern.match(path)), of_all)
        if not is_alpha(alpha):
            raise self._wrong(f"has the alpha {shown(alpha, 20)}, which is not a number above 0")
        # alpha/√r, arXiv:2312.03732
        return alpha * rank**0.5 if self.values.get(f"{part}.use_rslora", False) else float(alpha)

    def _compiled(self, table: Any) -> list[tuple[re.Pattern, float]]:
        """PEFT's own rule: the first pattern that fits the end of a layer's name decides."""
        if not isinstance(table, dict) or len(table) > MOST_PATTERNS:
            raise self._wrong(f"has an alpha_pattern that is no table of at most {MOST_PATTERNS:,} layers")
        if wrong := next((pattern for pattern in table if not NAME.fullmatch(pattern)), None):
            raise self._wrong(f"has an alpha for {shown(wrong)!r}, which is no layer's name")
        return [(re.compile(rf"(.*\.)?({pattern})$"), value) for pattern, value in table.items()]

    def _wrong(self, what: str) -> ValueError:
        return ValueError(
            f"{shown(self.path.name)} can't be loaded: {KEY} in its header {what}; save it again with another program."
        )

"""The small base model and the example set that ship with the program; MODEL_CARD.md tells where they come from."""

from pathlib import Path

HERE = Path(__file__).parent
MODEL = HERE / "model"
NOTICE = HERE / "LICENSES.md"


def example_set(name: str) -> Path:
    """The folder of a shipped set: `streamline`, or its held-out pictures, `streamline/heldout`."""
    folder = HERE / "sets" / (name if "/" in name else f"{name}/train")
    if not folder.is_dir():
        shipped = ", ".join(sorted(path.name for path in (HERE / "sets").iterdir()))
        raise ValueError(f"starter:{name} is not a shipped set; there is {shipped}, and its /heldout")
    return folder

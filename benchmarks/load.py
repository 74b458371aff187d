"""Many browsers, many uploads, many pictures: `python benchmarks/load.py [poll|upload|many]`, all of them unless named.

The real page and the real trainer on this computer, in a temporary home; what runs is ended and what was made is removed.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def poll(asked: argparse.Namespace) -> str:
    import load_poll

    return load_poll.measure(asked.browsers, asked.seconds, asked.rounds)


def many(asked: argparse.Namespace) -> str:
    import load_many

    return load_many.measure(asked.pictures)


def upload(asked: argparse.Namespace) -> str:
    import load_upload

    return load_upload.measure(asked.uploads, asked.sides)


PARTS = {"poll": poll, "upload": upload, "many": many}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], metavar="|".join(PARTS))
    parser.add_argument("--browsers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15, help="of each window of polls")
    parser.add_argument("--rounds", type=int, default=3, help="windows without and with browsers, in turns")
    parser.add_argument("--uploads", type=int, default=1000, help="pictures of `upload`")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1536], help="pixels of those")
    parser.add_argument("--pictures", type=int, nargs="+", default=[200, 20_000], help="of `many`")
    asked = parser.parse_args(arguments)
    for part in asked.parts or PARTS:
        print(f"{part}\n{PARTS[part](asked)}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

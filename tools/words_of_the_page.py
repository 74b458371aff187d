"""What the page says, and what of it each language lacks: `python tools/words_of_the_page.py [LANGUAGE]`.

Prints {English: ""} of every sentence that languages/LANGUAGE.json has not, ready to be filled in; with `--take FILE`
takes such a file over, drops what the page no longer says, and writes the catalogue in the page's order.
"""

import argparse
import ast
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from app import words  # noqa: E402


def said() -> list[str]:
    """Every sentence of the page: what is laid out, the words of menus, and what `say` is given in the code."""
    from app import pages

    demo = pages.build()
    laid_out = [text for _, _, text in words.laid_out(demo)]
    return list(dict.fromkeys([*laid_out, *sorted(words.choices(demo)), *composed()]))


def composed() -> list[str]:
    """The literal first arguments of `say` in app/, in the order of the files."""
    found = []
    for path in sorted((ROOT / "app").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(call, ast.Call)
                and getattr(call.func, "id", getattr(call.func, "attr", "")) == "say"
            ):
                found += [
                    part.value
                    for part in ast.walk(call.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("language", choices=words.LANGUAGES)
    parser.add_argument("--take", type=Path, help="a JSON file of translations")
    args = parser.parse_args()
    known, all_said = words.catalogue(args.language), said()
    if args.take:
        known = known | json.loads(args.take.read_text(encoding="utf-8"))
        kept = {text: known[text] for text in all_said if known.get(text)}
        file = words.FOLDER / f"{args.language}.json"
        file.write_text(json.dumps(kept, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        print(f"{file.name}: {len(kept)} of {len(all_said)} sentences")
    else:
        print(json.dumps({text: "" for text in all_said if text not in known}, ensure_ascii=False, indent=0))


if __name__ == "__main__":
    main()

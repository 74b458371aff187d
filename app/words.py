"""The page in the reader's language: English sentences are the keys of `languages/LANGUAGE.json`.

What is laid out once is plain English in the code; `translated` marks it, and Gradio's I18n turns it in the browser.
What a handler composes goes through `say`, in the language that the request asks for.
"""

import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.api_component import Api
from gradio.context import LocalContext

FOLDER = Path(__file__).parent / "languages"
ENGLISH = "en"
# Language -> how browsers ask for it; of Chinese Gradio knows these two only, and shows English for zh and zh-HK.
ASKED = {"de": r"de\b", "ja": r"ja\b", "zh": r"zh-(cn|tw)\b"}
LANGUAGES = tuple(ASKED)
POINTS = ("de",)  # languages in which a point sets thousands apart
THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
PARTS = ("label", "info", "placeholder")  # of every component
WRITTEN = (gr.Markdown, gr.Button, gr.UploadButton, gr.DownloadButton)  # whose value is ours, not a person's


def say(text: str, **values: Any) -> str:
    """The sentence in the reader's language; `{name}` in it are filled in from `values` as by str.format."""
    reader = language()
    said = catalogue(reader).get(text, text)
    return said.format(**{name: grouped(value, reader) for name, value in values.items()}) if values else said


def grouped(value: Any, language: str) -> Any:
    """A number whose thousands are set apart, as the language does it: 2,500 is two and a half in German."""
    if language in POINTS and isinstance(value, str) and THOUSANDS.fullmatch(value):
        return value.replace(",", ".")
    return value


def language() -> str:
    """That of the request that is being answered; English where none is."""
    request = LocalContext.request.get(None)
    return preferred(request.headers.get("accept-language") or "") if request else ENGLISH


@lru_cache(maxsize=100)
def preferred(accepted: str) -> str:
    """`"de-AT,de;q=0.9,en;q=0.8" -> "de"`: the first that a browser asks for, as Gradio takes it in the browser."""
    first = accepted.strip().lower()
    return next((name for name, asked in ASKED.items() if re.match(asked, first)), ENGLISH)


@cache
def catalogue(language: str) -> dict[str, str]:
    """English sentence -> that of the language."""
    file = FOLDER / f"{language}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def laid_out(demo: gr.Blocks) -> Iterator[tuple[Any, str, str]]:
    """(component, attribute, text) of all that the page itself says."""
    for block in demo.blocks.values():
        if isinstance(block, Api):  # a script's argument, which nobody sees
            continue
        names = [*PARTS, "value"] if isinstance(block, WRITTEN) else PARTS
        for name in names:
            text = getattr(block, name, None)
            if isinstance(text, str) and text:
                yield block, name, text


def choices(demo: gr.Blocks) -> set[str]:
    """The words of menus, which Gradio translates unmarked; not names like adamw or euler_a."""
    menus = (getattr(block, "choices", None) or [] for block in demo.blocks.values())
    return {
        str(label) for menu in menus for label, value in menu if label != value or str(label)[:1].isupper()
    }


def translated(demo: gr.Blocks) -> gr.I18n:
    """Mark what the page says for translation; the catalogues for `launch`."""
    known = catalogue(LANGUAGES[0])
    used = choices(demo)
    for block, name, text in list(laid_out(demo)):
        used.add(text)
        if text in known:
            setattr(block, name, gr.i18n.I18nData(text))
    languages = {
        name: {text: said for text, said in catalogue(name).items() if text in used} for name in LANGUAGES
    }
    return gr.I18n(en={text: text for text in known if text in used}, **languages)

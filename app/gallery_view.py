"""The pictures of Try it as a page of small ones, and one of them large with how it was made.

Every button carries where it stands (the page's first picture, stars only or not), so that nothing is remembered between clicks.
"""

from pathlib import Path
from typing import NamedTuple

from lora_sd.lora.strength import Strength
from lora_sd.paths import shown

from . import gallery, try_view, view
from .gallery import Kept
from .view import Node, node
from .words import say

A_PAGE = 24


class Place(NamedTuple):
    """What is looked at."""

    at: int = 0  # the first picture of the page
    starred: bool = False  # only those with a star
    opened: str = ""  # the large one
    deleting: bool = False  # whether that was asked for

    def data(self) -> dict[str, str]:
        return {"at": str(self.at), "starred": "1" if self.starred else ""}


def place(click: dict[str, str]) -> Place:
    """Where a click came from; anyone may send anything."""
    at = click.get("at", "")
    first = int(at) if at.isdecimal() and len(at) < 8 else 0
    return Place(first // A_PAGE * A_PAGE, click.get("starred") == "1", str(click.get("id", "")))


def draw(here: Place | None = None) -> Node:
    """The gallery, with the large picture if there is one."""
    here = here or Place()
    names = gallery.ids(starred=here.starred)
    here = here._replace(at=min(here.at, (len(names) - 1) // A_PAGE * A_PAGE) if names else 0)
    opened = gallery.get(here.opened) if here.opened else None
    return node(
        "div",
        _head(here, len(names)),
        _large(here, opened) if opened else None,
        node("div", *(_small(here, name) for name in names[here.at : here.at + A_PAGE]), cls="wall"),
        None if names else node("p", _nothing(here), cls="quiet"),
        _pages(here, len(names)),
        cls="gallery",
    )


def _nothing(here: Place) -> str:
    if here.starred:
        return say("No picture has a star yet; open one and press Star.")
    return say("Every picture you make is kept here, with how it was made.")


def _head(here: Place, count: int) -> Node:
    if here.starred:
        many = say("1 with a star") if count == 1 else say("{number} with a star", number=f"{count:,}")
    else:
        many = say("1 picture") if count == 1 else say("{number} pictures", number=f"{count:,}")
    told = f"{many} · {try_view.size(gallery.size())}" if count and not here.starred else many
    other = Place(starred=not here.starred).data()
    which = view.button(say("All") if here.starred else say("★ Starred only"), "look", **other)
    return node("div", node("h3", say("Your pictures")), node("span", told, cls="quiet"), which, cls="head")


def _small(here: Place, name: str) -> Node | None:
    kept = gallery.get(name)
    if kept is None:
        return None
    star = node("span", "★", cls="star", aria_label=say("starred"), role="img") if kept.starred else None
    chosen = "true" if here.opened == name else None
    return node(
        "button",
        node("img", src=view.url(gallery.small(name)), alt=shown(kept.job["prompt"], 120), loading="lazy"),
        star,
        type="button",
        cls="picture",
        aria_current=chosen,
        data_act="look",
        data_id=name,
        **{f"data_{key}": value for key, value in here.data().items()},
    )


def _large(here: Place, kept: Kept) -> Node:
    return node(
        "section",
        node("img", src=view.url(kept.path), alt=shown(kept.job["prompt"])),
        node(
            "div",
            node("p", kept.job["prompt"], cls="prompt"),
            _settings(kept),
            _actions(here, kept),
            try_view.how(kept.text),
        ),
        cls="large",
        aria_label=say("The chosen picture"),
    )


def _settings(kept: Kept) -> Node:
    job = kept.job
    loras = [f"{Path(path).stem} {_strength(given)}" for path, given in job["loras"]]
    rows = {
        say("LoRA"): ", ".join(loras) or say("no LoRA"),
        say("Negative prompt"): job["negative"],
        say("Seed"): str(job["seed"]),
        say("Steps"): str(job["steps"]),
        say("Guidance"): f"{job['guidance']:g}",
        say("Model"): Path(str(job["base"])).name,
    }
    return node(
        "dl",
        *(node("div", node("dt", name), node("dd", value)) for name, value in rows.items() if value),
        cls="summary",
    )


def _strength(given: float | dict) -> str:
    return str(Strength(**given)) if isinstance(given, dict) else f"{given:g}"


def _actions(here: Place, kept: Kept) -> Node:
    data = {"id": kept.id, **here.data()}
    if here.deleting:
        return node(
            "div",
            node("b", say("Delete this picture for good?")),
            view.button(say("Delete"), "really", **data),
            view.button(say("Keep it"), "look", **data),
            cls="actions",
            role="alert",
        )
    return node(
        "div",
        view.button(say("Use these settings"), "use", cls="primary", **data),
        view.button(say("★ Take the star away") if kept.starred else say("☆ Star"), "star", **data),
        try_view.download(kept.path, kept.job["prompt"]),
        view.button(say("Delete …"), "delete", **data),
        view.button(say("Close"), "look", **here.data()),
        cls="actions",
    )


def _pages(here: Place, count: int) -> Node | None:
    if count <= A_PAGE:
        return None
    last = min(here.at + A_PAGE, count)
    newer = Place(max(here.at - A_PAGE, 0), here.starred).data()
    older = Place(here.at + A_PAGE, here.starred).data()
    told = say("{first}–{last} of {count}", first=here.at + 1, last=last, count=f"{count:,}")
    return node(
        "div",
        view.button(say("Newer"), "look", **newer) if here.at else None,
        node("span", told, cls="quiet"),
        view.button(say("Older"), "look", **older) if last < count else None,
        cls="actions pages",
    )

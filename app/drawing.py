"""Pictures for Try it: a job of the page's values, drawn by the one worker and kept, so that a known one shows at once."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_sd import hardware
from lora_sd.lora import strength
from lora_sd.lora.strength import Strength
from lora_sd.worker import Client

from . import gallery, loras, models, places, story
from .words import say

Job = dict[str, Any]  # as lora_sd.worker takes it
PARTS = ("unet", "text", "down", "mid", "up")  # of a LoRA, each with a strength of its own on the page
MOST_TABS = 200  # whose wishes are remembered
SETTLE = 0.05  # seconds in which a wish that was overtaken by an older one is known again
client = Client()  # the one drawing process of this program
counts: dict[str, int] = {}  # of what it loaded and encoded so far, and the milliseconds of its last picture
wanted: dict[str, list[Job]] = {}  # by tab: what it waits for


class Cancelled(ValueError):
    """A picture was given up."""


def job(values: dict[str, Any], most_loras: int) -> Job:
    """The drawing job of the page's values. Raises ValueError for what can't be drawn."""
    if not values["prompt"].strip():
        raise ValueError(say("Write what the picture should show."))
    base = models.base(values["base"])
    chosen = [(values[f"lora_{i}"], of_row(values, i)) for i in range(most_loras)]
    files = [[str(loras.file(lora)), given] for lora, given in chosen if lora]
    if len({path for path, _ in files}) < len(files):
        raise ValueError(say("The same LoRA is chosen twice; choose another, or set one of them to none."))
    return {
        "base": base.source,
        "loras": files,
        "prompt": values["prompt"].strip(),
        "negative": values["negative"].strip(),
        "seed": int(values["seed"] or 0),
        "steps": int(values["steps"]),
        "guidance": values["guidance"],
        "sampler": values["sampler"],
        "size": size(values["size"]),
        "device": "cpu" if values["on_cpu"] else "auto",
    }


def of_row(values: dict[str, Any], number: int) -> float | dict[str, Any]:
    """The strength of one LoRA of the page: a number, or with those of its parts."""
    parts = {name: values.get(f"{name}_{number}", 1) for name in PARTS}
    if None in (values[f"strength_{number}"], *parts.values()):  # a field that is being typed in
        raise ValueError(say("Give every strength a number."))
    sides = {name: parts.pop(name) for name in ("unet", "text")}
    named = strength.parts(re.sub(r"[,;:]", " ", values.get(f"blocks_{number}", "")).split())
    blocks = {name: value for name, value in {**parts, **named.pop("blocks", {})}.items() if value != 1}
    given = Strength(values[f"strength_{number}"], **{**sides, **named}, blocks=blocks)
    return given.whole if given.plain else asdict(given)


def seeds(job: Job, count: int) -> list[Job]:
    """The same with as many seeds, one after the other."""
    return [{**job, "seed": job["seed"] + number} for number in range(count)]


def size(text: str) -> tuple[int, int] | None:
    """`"768 × 512" -> (768, 512)`; nothing is the model's own."""
    if not text.strip():
        return None
    match = re.fullmatch(r"\s*(\d{1,5})\s*[x×*, ]\s*(\d{1,5})\s*", text)
    if not match:
        raise ValueError(
            say("The size is {size}; write width × height, like 768 × 512.", size=repr(text.strip()))
        )
    return int(match[1]), int(match[2])


def without_and_with(job: Job) -> list[Job]:
    """The same picture with every LoRA off, and as it is."""
    if not job["loras"]:
        raise ValueError(say("Choose a LoRA to compare with."))
    return [{**job, "loras": [[path, 0.0] for path, _ in job["loras"]]}, job]


def free() -> None:
    """Give the card's memory to a training. A picture that is being made on the processor goes on."""
    job = client.job
    if job and (job["device"] == "cpu" or hardware.best().kind == "cpu"):
        return
    client.free()


def warm(values: dict[str, Any], most_loras: int) -> None:
    """Begin to load what the page has chosen, unless something is loaded, or a training needs the machine."""
    if client.alive or story.active():
        return
    try:
        chosen = job({**values, "prompt": "…"}, most_loras)
    except ValueError:
        return  # told when a picture is asked for
    loaded = {name: chosen[name] for name in ("base", "loras", "device")}
    threading.Thread(target=client.load, kwargs=loaded, daemon=True).start()


def draw(job: Job) -> Iterator[tuple[int, int] | Path]:
    """Progress (done, total), and last the picture. Raises ValueError with the sentence of what went wrong."""
    target = gallery.known(job)
    if target is None:
        for message in client.generate(**job, out=str(places.making())):
            match message["kind"]:
                case "progress":
                    yield message["done"], message["total"]
                case "picture":
                    target = gallery.keep(job, Path(message["path"]))
                case "done":
                    counts.update(message["counts"])
                case "failed":
                    raise ValueError(message["text"])
                case "cancelled":
                    raise Cancelled(say("Cancelled."))
    yield target


# -- the latest wish of a tab wins -------------------------------------------------------------------------------------


def want(tab: str, jobs: Sequence[Job]) -> None:
    """These are what a tab waits for from now on: what it has under way of older wishes is given up."""
    before = wanted.pop(tab, [])
    wanted[tab] = list(jobs)
    while len(wanted) > MOST_TABS:
        wanted.pop(next(iter(wanted)))
    under_way = _under_way()
    if under_way in before and under_way not in jobs:
        client.cancel()


def cancel(tab: str) -> None:
    """Give up what a tab waits for, and what is being made."""
    wanted.pop(tab, None)
    client.cancel()


def is_wanted(tab: str, job: Job) -> bool:
    """Whether a tab still waits for it. A wish that an older one overtook on its way here is told again in a moment."""
    if job not in wanted.get(tab, []):
        time.sleep(SETTLE)
    return job in wanted.get(tab, [])


def latest(tab: str, job: Job) -> Iterator[tuple[int, int] | Path]:
    """As `draw`, for as long as the tab waits for it; then Cancelled."""
    while is_wanted(tab, job):
        try:
            with contextlib.closing(draw(job)) as news:  # leaving it gives the picture up
                for one in news:
                    if not is_wanted(tab, job):  # it may have waited for another's, or for the model
                        break
                    yield one
                else:
                    return
        except Cancelled:
            continue  # unless by a wish that an older one overtook
    raise Cancelled(say("Cancelled."))


def _under_way() -> Job | None:
    made = client.job
    return {name: value for name, value in made.items() if name != "out"} if made else None

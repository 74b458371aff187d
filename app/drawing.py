"""Pictures for Try it: a job of the page's values, drawn by the one worker and kept, so that a known one shows at once."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_sd import hardware
from lora_sd.worker import Client

from . import loras, models, places

Job = dict[str, Any]  # as lora_sd.worker takes it
client = Client()  # the one drawing process of this program


def job(values: dict[str, Any], most_loras: int) -> Job:
    """The drawing job of the page's values. Raises ValueError for what can't be drawn."""
    if not values["prompt"].strip():
        raise ValueError("Write what the picture should show.")
    base = models.base(values["base"])
    chosen = [(values[f"lora_{i}"], values[f"strength_{i}"]) for i in range(most_loras)]
    files = [[str(loras.file(lora)), strength] for lora, strength in chosen if lora]
    if len({path for path, _ in files}) < len(files):
        raise ValueError("The same LoRA is chosen twice; choose another, or set one of them to none.")
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


def size(text: str) -> tuple[int, int] | None:
    """`"768 × 512" -> (768, 512)`; nothing is the model's own."""
    if not text.strip():
        return None
    match = re.fullmatch(r"\s*(\d{1,5})\s*[x×*, ]\s*(\d{1,5})\s*", text)
    if not match:
        raise ValueError(f"The size is {text.strip()!r}; write width × height, like 768 × 512.")
    return int(match[1]), int(match[2])


def at(job: Job, strength: float) -> Job:
    """The same picture at another strength of its first LoRA."""
    if not job["loras"]:
        raise ValueError("Choose a LoRA first.")
    (path, _), *others = job["loras"]
    return {**job, "loras": [[path, strength], *others]}


def without_and_with(job: Job) -> list[Job]:
    """The same picture with every LoRA off, and as it is."""
    if not job["loras"]:
        raise ValueError("Choose a LoRA to compare with.")
    return [{**job, "loras": [[path, 0.0] for path, _ in job["loras"]]}, job]


def kept(job: Job) -> Path:
    """Where the picture of a job is, or will be."""
    files = [Path(path) for path, _ in job["loras"]]
    stamps = [(path.stat().st_mtime_ns, str(loras.embedding(path))) for path in files]
    key = hashlib.sha1(json.dumps([job, stamps]).encode()).hexdigest()[:20]
    return places.pictures() / f"{key}.png"


def free() -> None:
    """Give the card's memory to a training. A picture that is being made on the processor goes on."""
    job = client.job
    if job and (job["device"] == "cpu" or hardware.best().kind == "cpu"):
        return
    client.free()


def draw(job: Job) -> Iterator[tuple[int, int] | Path]:
    """Progress (done, total), and last the picture. Raises ValueError with the sentence of what went wrong."""
    target = kept(job)
    if not target.exists():
        for message in client.generate(**job, out=str(target.parent)):
            match message["kind"]:
                case "progress":
                    yield message["done"], message["total"]
                case "picture":
                    Path(message["path"]).replace(target)
                case "failed":
                    raise ValueError(message["text"])
                case "cancelled":
                    raise ValueError("Cancelled.")
    yield target

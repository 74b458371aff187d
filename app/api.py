"""What scripts may ask of the running program, through gradio_client: a short list of names (docs/api.md).

Whatever else the page calls is private. Everything goes the way of the page: one line of runs, one drawing process, and
the same limits while other computers are let in.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData

from lora_sd import config as cfg
from lora_sd import run
from lora_sd.settings import PreviewSettings

from . import drawing, line, loras, models, reach, story

MOST_RUNS = 50  # in a list, where no other number is asked for


def train(settings: dict[str, Any]) -> str:
    """Train a LoRA with these settings, now or when the runs before it are done.

    Args:
        settings: as in a settings file, nested or by dotted name: {"data": {"images": "starter:streamline"}} or
            {"data.images": "starter:streamline"}. Places are of the computer that the program runs on.

    Returns:
        The run's id, for `status` and `stop`.
    """
    config = cfg.changed(cfg.TrainConfig(), settings)
    reach.check(config)
    config = cfg.changed(config, {"model.base": models.base(config.model.base).source})
    folder = run.create(config, status="queued")
    line.begin(folder)
    return folder.name


def status(run_id: str = "") -> dict[str, Any]:
    """How a run is going.

    Args:
        run_id: of `train` or `list`; without it the run that is training, else the newest.

    Returns:
        id, name, status, phase, step, total, seconds_left, seconds_per_step, loss, held_out, error, and loras (for
        `generate` and `download`, the newest last). What is not known yet is null.
    """
    return _told(_folder(run_id))


def list_runs(limit: int = MOST_RUNS) -> list[dict[str, Any]]:
    """The newest runs, newest first.

    Args:
        limit: how many at most.
    """
    return [
        {"id": found.folder.name, "name": found.name, "status": found.state.status, "step": found.state.step}
        for found in story.runs()[: max(0, limit)]
    ]


def stop(run_id: str, pause: bool = False) -> str:
    """Stop a run after its current step and save its LoRA.

    Args:
        run_id: of `train` or `list`.
        pause: keep everything for going on, and end without a LoRA file of that step.

    Returns:
        The status that the run had when it was asked.
    """
    folder = _folder(run_id)
    state = run.read_state(folder)
    if state.status == "queued":
        line.change("leave", folder.name)
    elif state.active:
        run.command(folder, "pause" if pause else "stop")
    else:
        raise ValueError(f"The run {folder.name} is not training: it is {state.status}.")
    return state.status


_usual = PreviewSettings()


def generate(
    prompt: str,
    loras: dict[str, float] | None = None,
    base: str = "starter",
    negative: str = "",
    seed: int = _usual.seed,
    steps: int = _usual.steps,
    guidance: float = _usual.guidance,
    sampler: str = _usual.sampler,
    size: str = "",
) -> FileData:
    """Draw one picture.

    Args:
        prompt: what it shows.
        loras: strength by LoRA, as `status` names them: {"20260101-120000-mycat/mycat.safetensors": 0.8}.
        base: a base model of the page's menu.
        negative: what it should not show.
        seed: of the noise it begins with.
        steps: of the sampler.
        guidance: how closely it follows the prompt.
        sampler: one of the page's menu.
        size: width × height, like "768 × 512"; empty is the model's own.

    Returns:
        The PNG file.
    """
    values = {
        "prompt": prompt, "negative": negative, "base": base, "seed": seed, "steps": steps, "guidance": guidance,
        "sampler": sampler, "size": size, "on_cpu": False,
    }  # fmt: skip
    pairs = list((loras or {}).items())
    values |= {f"lora_{i}": lora for i, (lora, _) in enumerate(pairs)}
    values |= {f"strength_{i}": strength for i, (_, strength) in enumerate(pairs)}
    *_, picture = drawing.draw(drawing.job(values, len(pairs)))
    return _file(picture)


def download(lora: str) -> FileData:
    """The LoRA file.

    Args:
        lora: as `status` names it: "20260101-120000-mycat/mycat.safetensors".
    """
    return _file(loras.offered(loras.file(lora)))


def _folder(run_id: str) -> Path:
    newest = [found.folder for found in story.runs()]
    current = story.active()
    if not run_id and newest:
        return current.folder if current else newest[0]
    if (found := run.find(run_id)) is None:
        raise ValueError(f"There is no run {run_id!r}; the list has those that there are.")
    return found


def _told(folder: Path) -> dict[str, Any]:
    told = story.read(folder)
    last = next((step for step in reversed(told.steps) if step.loss is not None), None)
    held_out = next((step.held_out for step in reversed(told.steps) if step.held_out is not None), None)
    return {
        "id": folder.name,
        "name": told.settings().output.name,
        "status": told.state.status,
        "phase": told.state.phase,
        "step": told.state.step,
        "total": told.state.total or None,
        "seconds_left": told.seconds_left,
        "seconds_per_step": told.seconds_per_step,
        "loss": last.loss if last else None,
        "held_out": held_out,
        "error": told.state.error or None,
        "loras": [f"{folder.name}/{file.name}" for file in story.checkpoints(folder)],
    }


def _file(path: Path) -> FileData:
    return FileData(path=str(path))


ENDPOINTS = {
    "train": train,
    "status": status,
    "list": list_runs,
    "stop": stop,
    "generate": generate,
    "download": download,
}


def build() -> None:
    """Offer them, and nothing else."""
    for name, ask in ENDPOINTS.items():
        gr.api(ask, api_name=name, concurrency_id="drawing" if name == "generate" else None)

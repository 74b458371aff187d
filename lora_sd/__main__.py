"""The command line: `python -m lora_sd train|resume|generate|inspect|download|doctor`.

Exit codes: 0 done, 1 failed, 2 bad input, 3 stopped and resumable.
"""

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import config as cfg
from . import errors, flags, run
from .events import Event, Failed, Finished, Note, Phase, Saved, Step
from .training import world

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 3


def train(arguments: list[str]) -> int:
    """Train a LoRA: [FILE.toml] and any setting as a flag, --lora.rank 16."""
    file = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    default = cfg.load(_preset(file)) if file else cfg.TrainConfig()
    if "--help" in arguments or "-h" in arguments:
        print(f"usage: python -m lora_sd train [FILE.toml] [--SETTING VALUE …]\n\n{flags.help_text(default)}")
        return DONE
    config = flags.parse(arguments, default)
    return _train(config, run.create(config) if world.told().first else None)


def _preset(file: str) -> Path:
    """A settings file, or the name of a shipped preset."""
    shipped = Path(__file__).parent / "presets" / f"{Path(file).stem}.toml"
    return shipped if not Path(file).exists() and shipped.exists() else Path(file)


def resume(arguments: list[str]) -> int:
    """Continue a run: RUN_FOLDER."""
    if len(arguments) != 1:
        raise ValueError("Give the run's folder: lora_sd resume RUN_FOLDER.")
    folder = Path(arguments[0]).resolve()
    return _train(cfg.load(folder / "config.toml"), folder)


def _train(config: cfg.TrainConfig, folder: Path | None) -> int:
    gc.disable()  # imports make a million objects that all stay: to look for rubbish among them takes a fifth of the time
    from .training.train import Stopped
    from .training.train import train as train_it

    gc.freeze()
    gc.enable()

    if not world.told().first:  # it writes nothing; where it fails, the launcher ends the others
        try:
            train_it(config, folder=folder)
        except Exception as error:
            print(f"Process {world.told().rank}: {errors.sentence(error)}", file=sys.stderr)
            return FAILED
        return DONE
    _stop_on_signal(folder)
    progress = Progress(folder)
    try:
        train_it(config, progress, folder=folder)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED
    except Exception as error:
        progress.end()
        return BAD_INPUT if isinstance(error, ValueError) else FAILED
    return STOPPED if progress.stopped else DONE


def _stop_on_signal(folder: Path) -> None:
    """Ctrl-C and SIGTERM stop and save; the second one ends at once."""

    def stop(number: int, frame: object) -> None:
        run.command(folder, "stop")
        signal.signal(number, signal.default_int_handler)
        print("\nStopping after this step, and saving. Press Ctrl-C again to end at once.", file=sys.stderr)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


@dataclass
class Progress:
    """Events as lines and one bar, on standard error."""

    folder: Path
    stopped: bool = False
    phase: str = ""
    loss: float | None = None
    times: list[float] = field(default_factory=list)
    open_line: bool = False
    printed: float = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Phase(text=text, done=done, total=total):
                self.count(text, done, total)
            case Step(step=step, total=total) if event.loss is not None:
                self.step(event)
            case Saved(path=path, modules=modules):
                trained = ", ".join(f"{part} {count}" for part, count in modules.items())
                self.line(f"Saved {self.folder / path} (layers: {trained})")
            case Note(text=text) | Failed(text=text):
                self.line(text)
            case Finished(stopped=stopped, step=step, path=path):
                self.stopped = stopped
                self.line(
                    f"Stopped at step {step}; resume with: python -m lora_sd resume {self.folder}"
                    if stopped
                    else f"Finished: {self.folder / path}"
                )
        if isinstance(event, Step) and event.held_out is not None:
            self.line(f"Held-out loss at step {event.step}: {event.held_out:.4f}")

    def step(self, event: Step) -> None:
        self.loss = event.loss if self.loss is None else 0.9 * self.loss + 0.1 * event.loss
        self.times = [*self.times[-29:], event.seconds]
        each = sum(self.times) / len(self.times)
        filled = 24 * event.step // event.total
        rate = f"{1 / each:.1f} steps/s" if each < 1 else f"{each:.1f} s/step"
        left = _duration((event.total - event.step) * each)
        bar = f"{event.step:>5}/{event.total} {'━' * filled}{'·' * (24 - filled)} loss {self.loss:.4f}  {rate}  {left} left"
        self.bar(bar, last=event.step == event.total)

    def count(self, text: str, done: int, total: int) -> None:
        if total:
            self.bar(f"{text} {done} of {total}", last=done == total)
        elif text not in (self.phase, "Training"):  # the bar says that
            self.line(text)
        self.phase = text

    def bar(self, text: str, *, last: bool) -> None:
        """On a terminal the line is written over; in a log, one line every five seconds."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self.open_line = True
        elif last or time.monotonic() - self.printed > 5:
            self.printed = time.monotonic()
            print(text, file=sys.stderr, flush=True)
        if last:
            self.end()

    def line(self, text: str) -> None:
        self.end()
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.open_line:
            print(file=sys.stderr)
        self.open_line = False


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def generate(arguments: list[str]) -> int:
    """Draw pictures: PROMPT … --lora FILE:0.8."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_sd generate", description="Pictures from prompts, with any LoRAs."
    )
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw; one picture each")
    parser.add_argument(
        "--model", default="starter", help="a checkpoint, a diffusers folder, a Hugging Face name, or starter"
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a LoRA; may be given several times",
    )
    parser.add_argument("--negative", default="", help="what the pictures should not show")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--steps", type=int, default=25, help="sampling steps")
    parser.add_argument("--guidance", type=float, default=5.0, help="how strongly the prompt is followed")
    parser.add_argument(
        "--sampler", default="dpmpp_2m_karras", help="ddim, euler, euler_a, dpmpp_2m_karras or unipc"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("W", "H"), help="pixels; the model's own size unless given"
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="the folder for the pictures")
    parser.add_argument("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto")
    asked = parser.parse_args(arguments)
    from . import hardware, sample
    from .models.load import load

    loras = dict(strength_of(text) for text in asked.lora)
    device, dtype = hardware.choose(asked.device)
    pictures = sample.generate(
        load(asked.model, device=device, dtype=dtype),
        asked.prompts,
        loras=loras,
        negative=asked.negative,
        seeds=[asked.seed],
        steps=asked.steps,
        guidance=asked.guidance,
        sampler=asked.sampler,
        size=tuple(asked.size) if asked.size else None,
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    for prompt, picture in zip(asked.prompts, pictures, strict=True):
        path = _free(asked.out / f"{run.safe_name(prompt)}.png")
        picture.save(path)
        print(path)
    return DONE


def strength_of(text: str) -> tuple[str, float]:
    """`cat.safetensors:0.8` → (path, strength); strength 1 where none is given. A drive letter is no strength."""
    path, colon, strength = text.rpartition(":")
    try:
        return (path, float(strength)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 … that does not exist: nothing is written over."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def inspect(arguments: list[str]) -> int:
    """What is in a LoRA file: FILE."""
    from .lora import metadata

    if len(arguments) != 1:
        raise ValueError("Give one LoRA file: lora_sd inspect FILE.")
    print(metadata.inspect(Path(arguments[0])))
    return DONE


def download(arguments: list[str]) -> int:
    """Fetch a base model by its Hugging Face name: NAME."""
    from .models import download as hub

    if len(arguments) != 1:
        names = ", ".join(f"{family} is {name}" for family, name in hub.DEFAULTS.items())
        raise ValueError(f"Give one model's name: lora_sd download NAME ({names}).")
    progress = Progress(Path("."))
    path = hub.download(
        arguments[0],
        on_progress=lambda done, total: progress.bar(
            f"{done / 1e9:.2f} of {total / 1e9:.2f} GB", last=done == total
        ),
    )
    print(path)
    return DONE


def doctor(arguments: list[str]) -> int:
    """What this machine can do, and the one command for each problem."""
    from .doctor import main as report

    return report()


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "resume": resume,
    "generate": generate,
    "inspect": inspect,
    "download": download,
    "doctor": doctor,
}


def main(arguments: list[str] | None = None) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one progress bar is enough
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return DONE
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise ValueError(f"There is no command {name!r}; the commands are {', '.join(COMMANDS)}.")
        return COMMANDS[name](rest)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return FAILED


def usage() -> str:
    lines = [f"  {name:10} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: python -m lora_sd COMMAND …", "", *lines, "", "COMMAND --help shows its options."]
    )


if __name__ == "__main__":
    sys.exit(main())

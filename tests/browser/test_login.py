"""The page behind a password in a real browser: for the person who knows it, and for another site that the person visits."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import App

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"
ATTACK = """async (base) => {
    const tried = async (path, options) => {
        try { return String((await fetch(base + path, {credentials: 'include', ...options})).status); } catch { return 'nothing'; }
    };
    const loads = (tag, path) => new Promise((done) => {
        const part = Object.assign(document.createElement(tag), {src: base + path});
        part.onload = () => done('seen');
        part.onerror = () => done('nothing');
        document.body.append(part);
    });
    const json = {'Content-Type': 'application/json'};
    return [
        await tried('config'),
        await tried('gradio_api/queue/join', {method: 'POST', body: '{}', mode: 'no-cors'}),
        await tried('gradio_api/queue/join', {method: 'POST', body: '{}', headers: json}),
        await tried('login', {method: 'POST', body: new URLSearchParams({username: 'a', password: 'b'})}),
        await loads('img', 'gradio_api/file=HOME/thumbs/served.webp'),
        await loads('script', 'config'),
    ];
}"""


@pytest.fixture
def locked(home: Path) -> Iterator[App]:
    app = App(home, "--listen", "0.0.0.0", "--password", PASSWORD)
    Image.new("RGB", (9, 9)).save(home / "thumbs" / "served.webp")
    yield app
    app.end_all()


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of another site."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<body>another site</body>")

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def log_in(page, password: str) -> None:
    page.locator("input").first.fill("artist")
    page.locator("input[type=password]").fill(password)
    page.get_by_role("button", name="Login").click()


def test_the_password_opens_the_page_and_another_site_gets_nothing_of_it(locked, browser, elsewhere):
    from playwright.sync_api import expect

    context = browser.new_context()
    page = context.new_page()
    page.goto(locked.url)
    log_in(page, "not the password")
    expect(page.get_by_text("Incorrect Credentials")).to_be_visible()
    log_in(page, PASSWORD)
    page.locator("#use-example").click()
    expect(page.locator("#pictures")).to_contain_text("24 pictures")
    expect(page.locator("#pictures img").first).to_be_visible()
    expect(page.locator("#folder")).to_have_count(0)
    assert page.evaluate(ATTACK.replace("HOME", str(locked.home)), locked.url)[4] == "seen"  # as our own page

    other = context.new_page()
    other.goto(elsewhere)
    got = other.evaluate(ATTACK.replace("HOME", str(locked.home)), locked.url)
    assert set(got) <= {"403", "nothing"}, got
    other.set_content(f"<iframe src={locked.url}></iframe>")
    other.wait_for_timeout(1000)
    assert len(other.frames) == 2 and "gradio" not in other.frames[1].content()
    other.set_content(f"<a href={locked.url}>to the page</a>")
    other.get_by_text("to the page").click()
    expect(other.locator("#pictures")).to_contain_text("24 pictures")
    context.close()

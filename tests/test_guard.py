"""Who may ask the page for what. Requests go to the guard as a browser, a script or a hostile page sends them."""

from types import SimpleNamespace

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from app.addresses import is_known, is_local, url
from app.guard import MOST_TRIES, MOST_TRIES_TOGETHER, Guard, Tries

BASE = "http://127.0.0.1:7860"
TOKEN = {"Cookie": "access-token-unsecure-id=right"}
OTHER_SITE = {"Sec-Fetch-Site": "cross-site"}
FOLLOWED_LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


def client(
    *, auth: bool = True, listen: str = "127.0.0.1", share: bool = False, status: int = 200
) -> TestClient:
    """The guard before a program that answers everything with `status`."""
    gradio = SimpleNamespace(
        auth={"artist": "secret"} if auth else None, cookie_id="id", tokens={"right": "artist"}
    )

    async def anything(scope, receive, send):
        cookie = {"Set-Cookie": "access-token-id=right; SameSite=none; Secure"}
        await PlainTextResponse("yes", status, cookie)(scope, receive, send)

    guard = Guard(anything, listen=listen, share=share)

    async def program(scope, receive, send):
        await guard({**scope, "app": gradio}, receive, send)

    return TestClient(program, base_url=BASE)


@pytest.mark.parametrize("path", ["/", "/login", "/assets/index.js", "/static/img/logo.svg", "/theme.css"])
def test_the_login_page_and_what_it_shows_are_open(path):
    assert client().get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/config",
        "/logout",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/1",
        "/gradio_api/file=/home/a.png",
    ],
)
def test_everything_of_the_page_needs_the_login(path):
    assert client().get(path).status_code == 401
    assert client().get(path, headers={"Cookie": "access-token-unsecure-id=wrong"}).status_code == 401
    assert client().get(path, headers=TOKEN).status_code == 200
    assert client(auth=False).get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/vibe-code",
        "/gradio_api/proxy=https://a.hf.space",
        "/gradio_api/component_server/x",
        "/gradio_api/token",
        "/gradio_api/file=http://10.0.0.1/secret",
        "/gradio_api/file=HTTPS://10.0.0.1/secret",
        "//config",
        "/new-in-the-next-gradio",
    ],
)
def test_what_the_page_does_not_use_is_answered_to_nobody(path):
    assert client().get(BASE + path, headers=TOKEN).status_code == 404


def test_a_websocket_is_closed():
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/config", headers=TOKEN):
        pass


def test_the_page_of_another_site_gets_nothing_even_from_someone_who_is_logged_in():
    ask = client()
    for headers in (
        OTHER_SITE,
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "null"},
    ):
        assert ask.post("/gradio_api/queue/join", headers=TOKEN | headers).status_code == 403
        assert ask.get("/gradio_api/file=/home/a.png", headers=TOKEN | headers).status_code == 403
        assert ask.post("/login", headers=headers).status_code == 403
    assert ask.get("/logout", headers=TOKEN | FOLLOWED_LINK).status_code == 403


def test_a_link_from_another_site_opens_the_page():
    assert client().get("/?run=1", headers=TOKEN | FOLLOWED_LINK).status_code == 200


def test_our_own_page_and_a_script_may_ask():
    ask = client()
    for headers in (
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
        {"Origin": BASE},
        {},
    ):
        assert ask.post("/gradio_api/queue/join", headers=TOKEN | headers).status_code == 200


@pytest.mark.parametrize(
    "host, alone, open_to_others",
    [
        ("127.0.0.1:7860", True, True),
        ("localhost:7860", True, True),
        ("[::1]:7860", True, True),
        ("127.0.0.9", True, True),
        ("192.168.1.5:7860", False, True),
        ("studio:7860", False, True),
        ("studio.fritz.box:7860", False, True),
        ("evil.com:7860", False, False),
        ("localhost.evil.com", False, False),
        ("127.0.0.1.evil.com", False, False),
        ("[::1", False, False),
        ("", False, False),
    ],
)
def test_a_name_that_another_site_could_own_is_not_known(host, alone, open_to_others, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Studio")
    assert is_known(host, "127.0.0.1", share=False) == alone
    assert is_known(host, "0.0.0.0", share=False) == open_to_others


def test_a_shared_page_has_the_name_that_its_tunnel_gives():
    assert is_known("1a2b3c.gradio.live", "127.0.0.1", share=True)
    assert is_known("studio.example", "studio.example", share=False)


def test_a_request_under_an_unknown_name_is_refused_before_anything_else():
    answer = client(auth=False).get("/", headers={"Host": "evil.com"})
    assert answer.status_code == 403
    assert (
        answer.json()["detail"]
        == "This page is not called 'evil.com'; open it by the address it was started with."
    )


def test_after_five_wrong_passwords_the_sixth_is_not_looked_at():
    ask = client(status=400)
    answers = [ask.post("/login").status_code for _ in range(MOST_TRIES + 1)]
    assert answers == [400] * MOST_TRIES + [429]
    assert ask.post("/login/").status_code == 429
    assert "wait a minute" in ask.post("/login").json()["detail"]
    assert ask.get("/").status_code == 400  # the login page is still asked for


def test_right_passwords_are_never_too_many():
    ask = client()
    assert {ask.post("/login").status_code for _ in range(3 * MOST_TRIES)} == {200}


def test_tries_are_forgotten_after_a_minute_and_counted_by_address_and_together():
    now = [100.0]
    tries = Tries(lambda: now[0])
    assert [tries.begin("a") for _ in range(MOST_TRIES + 1)] == [True] * MOST_TRIES + [False]
    assert tries.begin("b")
    now[0] += 61
    assert tries.begin("a")
    made_up = [tries.begin(f"10.0.0.{i}") for i in range(MOST_TRIES_TOGETHER)]
    assert made_up.count(True) == MOST_TRIES_TOGETHER - 1


def test_every_answer_forbids_framing_guessing_of_types_and_talking_to_others():
    for answer in (client().get("/"), client().get("/config")):
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' data: blob:")


def test_the_cookie_of_the_login_stays_with_this_site():
    assert "SameSite=lax" in client().post("/login").headers["Set-Cookie"]


def test_addresses_of_this_computer_alone_and_of_others():
    assert all(map(is_local, ("127.0.0.1", "127.0.0.9", "::1", "localhost")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.5", "studio", "", "127.1")))
    assert url("0.0.0.0", 7860) == "http://127.0.0.1:7860/"
    assert url("::", 7860) == url("::1", 7860) == "http://[::1]:7860/"

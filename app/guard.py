"""Every request passes here before Gradio sees it: who may ask for what.

Gradio's login covers some of its routes only (docs/routes.md lists them all). Here nothing is answered that is not
named, nothing but the login page without a login, and nothing at all to the page of another site, or under a name that
is not this computer's.
"""

import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .addresses import is_known

# What the login page needs; answered to everyone.
OPEN = (
    "/",
    "/login",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/robots.txt",
    "/gradio_api/startup-events",
)
OPEN_BELOW = ("/assets/", "/static/", "/svelte/")
# What the page needs; answered after the login. Whatever is in neither is answered to nobody.
API = (
    "info app_id theme.css upload upload_progress queue/join queue/data cancel reset component_server".split()
)
PAGE = ("/config", "/logout", *(f"/gradio_api/{name}" for name in API))
PAGE_BELOW = ("/gradio_api/run/", "/gradio_api/heartbeat/", "/gradio_api/file=")
ELSEWHERE = "/gradio_api/file=http"  # would have this computer fetch another's files

MOST_TRIES = 5  # passwords from one address in TRIES_SECONDS
MOST_TRIES_TOGETHER = 60  # from all addresses: behind a tunnel an address can be made up
TRIES_SECONDS = 60

SHARED_FROM = "https://gradio.s3-us-west-2.amazonaws.com"  # where a shared page gets Gradio's scripts
HEADERS = {
    "X-Program": "LoRA SD",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # "no-referrer" would hide the Origin that tells our page from others
}
POLICY = (  # the page talks to nobody else; Gradio's templates need eval
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'{also}; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


class Refusal(NamedTuple):
    status: int
    why: str


class Tries:
    """Passwords tried in the last minute; a right one takes back those of its address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.made: list[tuple[float, str]] = []  # (when, address)

    def begin(self, address: str) -> bool:
        """Count one more, unless there were too many. It counts before it is known to be wrong: many may come at once."""
        now = self.clock()
        self.made = [(when, who) for when, who in self.made if when > now - TRIES_SECONDS]
        own = sum(who == address for _, who in self.made)
        allowed = own < MOST_TRIES and len(self.made) < MOST_TRIES_TOGETHER
        if allowed:
            self.made.append((now, address))
        return allowed

    def right(self, address: str) -> None:
        self.made = [(when, who) for when, who in self.made if who != address]


class Guard:
    """The middleware; `listen` is the address the page is served at, `share` whether a tunnel leads to it."""

    def __init__(self, app: ASGIApp, *, listen: str, share: bool) -> None:
        self.app = app
        self.listen, self.share = listen, share
        self.tries = Tries()
        self.headers = HEADERS | {
            "Content-Security-Policy": POLICY.format(also=f" {SHARED_FROM}" if share else "")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = self.refusal(HTTPConnection(scope))
            answer = JSONResponse({"detail": refusal.why}, refusal.status) if refusal else self.app
            await answer(scope, receive, self.with_headers(scope, send))

    def refusal(self, request: HTTPConnection) -> Refusal | None:
        path = request.scope["path"]
        host = request.headers.get("host", "")
        if not is_known(host, self.listen, self.share):
            return Refusal(
                403, f"This page is not called {host!r}; open it by the address it was started with."
            )
        if from_another_site(request):
            return Refusal(403, "Another site's page asked for this; only this program's own page may.")
        if not (is_open(path) or is_of_page(path)):
            return Refusal(404, "There is nothing here.")
        if not (is_open(path) or is_logged_in(request)):
            return Refusal(401, "Log in first.")
        if is_try(request.scope) and not self.tries.begin(address(request.scope)):
            return Refusal(429, "Too many wrong passwords; wait a minute, then try again.")
        return None

    def with_headers(self, scope: Scope, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self.headers)
                if is_try(scope) and message["status"] == 200:
                    self.tries.right(address(scope))
                    keep_cookies_here(message)
            await send(message)

        return sending


def is_open(path: str) -> bool:
    return _plain(path) in OPEN or path.startswith(OPEN_BELOW)


def is_of_page(path: str) -> bool:
    return _plain(path) in PAGE or (path.startswith(PAGE_BELOW) and not path.lower().startswith(ELSEWHERE))


def _plain(path: str) -> str:
    """Gradio answers /config/ as it does /config."""
    return path.removesuffix("/") or "/"


def is_try(scope: Scope) -> bool:
    """Whether a password is sent."""
    return scope["method"] == "POST" and _plain(scope["path"]) == "/login"


def address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def is_logged_in(request: HTTPConnection) -> bool:
    """As Gradio itself decides it (routes.py, get_current_user); where there is no password everyone is."""
    gradio = request.scope["app"]
    cookies = (f"access-token-{gradio.cookie_id}", f"access-token-unsecure-{gradio.cookie_id}")
    token = request.cookies.get(cookies[0]) or request.cookies.get(cookies[1])
    return gradio.auth is None or token in gradio.tokens


def from_another_site(request: HTTPConnection) -> bool:
    """Whether a page from elsewhere asks. Following a link to our page is a person's own wish.

    Browsers say where a request comes from in Sec-Fetch-Site, but not over plain http from another computer; there the
    Origin of what changes something remains. "same-site" is another port of this computer, or another's shared page.
    """
    site = request.headers.get("sec-fetch-site")
    if site:
        link = request.headers.get("sec-fetch-mode") == "navigate" and request.scope["path"] == "/"
        return site not in ("same-origin", "none") and not (link and request.scope["method"] == "GET")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def keep_cookies_here(login: Message) -> None:
    """Gradio's cookie would go along when another site asks."""
    login["headers"] = [
        (name, value.replace(b"SameSite=none", b"SameSite=lax") if name == b"set-cookie" else value)
        for name, value in login["headers"]
    ]

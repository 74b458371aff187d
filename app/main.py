"""Start the page: `python -m app.main [--port N] [--no-browser] [--listen ADDRESS | --share] [--username U --password P]`.

Gradio takes seconds to import, so everything that can go wrong is found out before.
"""

import argparse
import gc
import os
import socket
import sys
import urllib.error
import urllib.request
import webbrowser

from . import places
from .addresses import is_local, url

TITLE = "LoRA SD"
HERE = "127.0.0.1"
SHORTEST_PASSWORD = 8  # characters, where others can try


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m app.main", description="The page on which LoRAs are made, watched and tried."
    )
    parser.add_argument("--port", type=int, default=7860, help="where the page is; 0 takes any free one")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--listen", default=HERE, metavar="ADDRESS", help="let other computers in: 0.0.0.0; needs a password"
    )
    parser.add_argument(
        "--share", action="store_true", help="a public address for up to a week; needs a password"
    )
    parser.add_argument("--username", default="artist", help="with --password")
    parser.add_argument(
        "--password",
        help="better set LORA_SD_PASSWORD: what is typed here, other users of this computer see in the list of programs",
    )
    args = parser.parse_args(given)
    if args.password is None:
        args.password = os.environ.get("LORA_SD_PASSWORD") or None
    return args


def check_access(listen: str, share: bool, username: str, password: str | None) -> None:
    """Refuse to be open to others without a password worth the name. Raises ValueError with the remedy."""
    if password is not None and not (username.strip() and password.strip()):
        raise ValueError(
            "The user name or the password is empty; write at least one letter, or leave the option out."
        )
    if not (share or not is_local(listen)):
        return
    option = "--share" if share else f"--listen {listen}"
    if password is None:
        raise ValueError(
            f"{option} lets other computers in, so it needs a password: set LORA_SD_PASSWORD, or add --password YOUR_PASSWORD."
        )
    if len(password) < SHORTEST_PASSWORD:
        raise ValueError(
            f"{option} lets other computers in, and a password of {len(password)} characters can be guessed; "
            f"it needs {SHORTEST_PASSWORD} or more."
        )


def free_port(address: str, port: int) -> int | None:
    """`port` if it is free (any free one for 0), else None. Raises ValueError for a port or address that can't be."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        if (
            os.name == "posix"
        ):  # a port that was just given up is free; on Windows the option means something else
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OverflowError as error:
            raise ValueError(f"--port is {port}; it must be between 0 and 65535.") from error
        except socket.gaierror as error:
            raise ValueError(
                f"--listen is {address!r}; it must be an address of this computer, like 0.0.0.0."
            ) from error
        except PermissionError as error:
            raise ValueError(
                f"Port {port} may not be used without more rights; choose one above 1024 with --port."
            ) from error
        except OSError:
            return None
        return probe.getsockname()[1]


def is_ours(address: str) -> bool:
    """Whether this program answers there already."""
    try:
        with urllib.request.urlopen(address, timeout=3) as page:
            return page.headers.get("X-Program") == TITLE
    except (urllib.error.URLError, OSError):
        return False


def main(given: list[str] | None = None) -> int:
    args = arguments(given)
    try:
        check_access(args.listen, args.share, args.username, args.password)
        port = free_port(args.listen, args.port)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if port is None:
        return already_there(args)
    os.environ.pop("LORA_SD_PASSWORD", None)  # nothing started from here needs it
    places.tidy()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(places.uploads())
    gc.disable()  # thousands of classes are about to be made and none let go: a fifth of the start would go into looking
    from . import pages

    gc.enable()
    auth = (args.username.strip(), args.password) if args.password else None
    open_to_others = args.share or not is_local(args.listen)
    pages.launch(
        pages.build(remote=open_to_others),
        address=args.listen,
        port=port,
        browser=not args.no_browser,
        share=args.share,
        auth=auth,
    )
    return 0


def already_there(args: argparse.Namespace) -> int:
    """The port is taken: by us, then show that page; or by another program."""
    page = url(args.listen, args.port)
    if is_ours(page):
        print(f"Already running at {page}")
        if not args.no_browser:
            webbrowser.open(page)
        return 0
    print(
        f"Port {args.port} is used by another program; choose another one: --port {args.port + 1}.",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())

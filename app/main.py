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
from ipaddress import ip_address

from . import places

TITLE = "LoRA SD"
HERE = "127.0.0.1"


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
        "--share", action="store_true", help="a public address for three days; needs a password"
    )
    parser.add_argument("--username", default="artist", help="with --password")
    parser.add_argument(
        "--password", default=os.environ.get("LORA_SD_PASSWORD"), help="or set LORA_SD_PASSWORD"
    )
    return parser.parse_args(given)


def check_access(listen: str, share: bool, password: str | None) -> None:
    """Refuse to be open to others without a password. Raises ValueError with the remedy."""
    if (share or not is_local(listen)) and not password:
        option = "--share" if share else f"--listen {listen}"
        raise ValueError(
            f"{option} lets other computers in, so it needs a password: add --password YOUR_PASSWORD, or set LORA_SD_PASSWORD."
        )


def is_local(address: str) -> bool:
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        return False


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


def is_ours(url: str) -> bool:
    """Whether this program answers at `url` already."""
    try:
        with urllib.request.urlopen(url, timeout=3) as page:
            return f"<title>{TITLE}</title>" in page.read().decode("utf-8", "replace")
    except (urllib.error.URLError, OSError):
        return False


def main(given: list[str] | None = None) -> int:
    args = arguments(given)
    try:
        check_access(args.listen, args.share, args.password)
        port = free_port(args.listen, args.port)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if port is None:
        return already_there(args)
    places.tidy()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(places.uploads())
    gc.disable()  # thousands of classes are about to be made and none let go: a fifth of the start would go into looking
    from . import pages

    gc.enable()
    auth = (args.username, args.password) if args.password else None
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
    url = f"http://{HERE if args.listen == '0.0.0.0' else args.listen}:{args.port}/"
    if is_ours(url):
        print(f"Already running at {url}")
        if not args.no_browser:
            webbrowser.open(url)
        return 0
    print(
        f"Port {args.port} is used by another program; choose another one: --port {args.port + 1}.",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())

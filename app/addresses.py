"""Under which addresses and names the page may be asked for."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit


def is_local(address: str) -> bool:
    """Whether only this computer can reach a page that is served there."""
    number = as_number(address)
    return address == "localhost" or (number is not None and number.is_loopback)


def as_number(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def url(address: str, port: int) -> str:
    """Where this computer finds a page served at `address`: `"::1" -> "http://[::1]:7860/"`."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"http://{bracketed(here)}:{port}/"


def bracketed(address: str) -> str:
    """An address as URLs and Gradio want it."""
    return f"[{address}]" if ":" in address else address


def is_known(host: str, listen: str, share: bool) -> bool:
    """Whether the Host of a request can mean the page served at `listen`.

    A site can give this computer's address to a name of its own (DNS rebinding), and its pages then count as ours; so
    a name must be one we know. A number can't be given away. The name of a shared page is the tunnel's choice and not
    known here: such a page has a password, and a login counts for one name only.
    """
    name = host_name(host)
    if share or name == "localhost":
        return True
    if is_local(listen):
        return is_local(name)
    return as_number(name) is not None or name in (listen.lower(), *own_names(name))


def host_name(host: str) -> str:
    """`"[::1]:7860" -> "::1"`; nothing for what can't be read."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def own_names(name: str) -> tuple[str, ...]:
    """This computer's name, alone and in the domain of `name`: routers add .local, .lan or .home."""
    own = socket.gethostname().lower().partition(".")[0]
    return own, f"{own}.{name.partition('.')[2]}"

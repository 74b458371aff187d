"""A seed for each layer."""

import hashlib


def stable_seed(seed: int, name: str) -> int:
    """64 bits that depend on these two alone, on any machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")

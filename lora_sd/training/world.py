"""The processes of one run: one a graphics card, on one machine or many, as torchrun and `accelerate launch` start them.

They see the same settings and the same order of pictures, take their part of every global batch, and add up their
gradients; the first of them writes. Alone, every function here does nothing.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import hardware

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(hours=2)  # while the first process draws previews, or another one prepares its pictures


class World(NamedTuple):
    """Which process this is, of how many: in all, and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the run's folder and talks to people."""
        return self.rank == 0

    @property
    def here(self) -> tuple[int, int]:
        """(which, of how many) of the processes that share this machine's disk."""
        return self.local_rank, self.local_size

    def add_up(self, tensor: "torch.Tensor") -> None:
        """Sum over the processes, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)

    def total(self, value: float, device: "torch.device") -> float:
        """Sum of a number over the processes."""
        return self._reduced("SUM", value, device)

    def most(self, value: int, device: "torch.device") -> int:
        """The largest of the processes' numbers."""
        return self._reduced("MAX", value, device)

    def _reduced(self, how: str, value: float, device: "torch.device") -> float:
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        there = torch.tensor([value], device=device)
        dist.all_reduce(there, getattr(dist.ReduceOp, how))
        return there.item()

    def agree(self, value: Any) -> Any:
        """The first process's value, everywhere."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def leave(self) -> None:
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


def told() -> World:
    """What the launcher says in the environment; a world of one without a launcher."""
    names = {
        "rank": "RANK",
        "size": "WORLD_SIZE",
        "local_rank": "LOCAL_RANK",
        "local_size": "LOCAL_WORLD_SIZE",
    }
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return World()
    return World(**{field: int(os.environ[name]) for field, name in names.items()})


def join(device: str) -> World:
    """Meet the other processes; `device` is as machine.device has it."""
    world = told()
    if world.size > 1:
        import torch
        import torch.distributed as dist

        kind = hardware.choose(device)[0].type
        if kind == "cuda":
            if world.local_size > torch.cuda.device_count():
                raise ValueError(
                    f"{world.local_size} processes were started and there are {torch.cuda.device_count()} graphics cards; "
                    "start one process for each card."
                )
            torch.cuda.set_device(world.local_rank)
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=PATIENCE)
    return world

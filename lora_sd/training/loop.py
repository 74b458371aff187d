"""The training loop: a generator of optimizer steps. Saving, previews and stopping belong to whoever iterates.

A step draws its examples, timesteps and noise as a function of (seed, step), so a run stopped at 5 and continued to 10
gives the same numbers as one that was never stopped.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .. import hardware
from ..data.batches import Batch
from ..events import Step
from ..models.family import Conditioning, Models
from . import diffusion, optim
from .loss import Inputs, denoising_loss

Condition = Callable[[list[str]], Conditioning]


def steps(
    models: Models,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    condition: Condition,
    *,
    first: int,
    last: int,
    accumulation: int,
    learning_rate: Callable[[int], float],
    seed: int,
    min_snr: float = 0.0,
    max_grad_norm: float = 0.0,
    scaler: torch.amp.GradScaler,
) -> Iterator[Step]:
    """Optimizer steps `first` to `last`, one event each, after it is done. `learning_rate` takes the steps done before.

    The loss of a step is the mean over all its examples, whatever way they fell into batches.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for number in range(first, last + 1):
        began = time.perf_counter()
        torch.manual_seed(diffusion.generator(seed, number).initial_seed())  # dropout
        optim.set_rate(optimizer, rate := learning_rate(number - 1))
        micro = [next(batches) for _ in range(accumulation)]
        loss = accumulate(models, micro, condition, seed=seed, step=number, min_snr=min_snr, scaler=scaler)
        if not torch.isfinite(loss):
            raise ArithmeticError(
                f"The loss is not a number any more at step {number}; lower optim.learning_rate ({rate:g}) and resume from the last save."
            )
        scaler.unscale_(optimizer)
        if max_grad_norm:
            nn.utils.clip_grad_norm_(trained, max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            step=number,
            total=last,
            loss=loss.item(),
            learning_rate=rate,
            seconds=time.perf_counter() - began,
            memory=hardware.memory_used(),
        )


def accumulate(
    models: Models,
    micro: list[Batch],
    condition: Condition,
    *,
    seed: int,
    step: int,
    min_snr: float,
    scaler: torch.amp.GradScaler,
) -> Tensor:
    """Gradients of the mean loss over all examples of `micro`; gives that mean."""
    count = sum(len(batch.captions) for batch in micro)
    total, first = torch.zeros((), device=models.device), 0
    for batch in micro:
        random = diffusion.draw(seed, step, first, tuple(batch.mean.shape), len(models.alpha_bar))
        latents = (batch.mean + batch.std * random.posterior).to(models.device)
        inputs = Inputs(latents, condition(batch.captions), batch.sizes.to(models.device))
        losses = denoising_loss(
            models, inputs, random.t.to(models.device), random.noise.to(models.device), min_snr=min_snr
        )
        loss = (losses * batch.weights.to(losses)).sum() / count
        scaler.scale(loss).backward()
        total += loss.detach()
        first += len(batch.captions)
    return total

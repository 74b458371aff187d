"""A plain training loop for the small models of tools/: AdamW, one cosine, one CUDA graph a step on a card."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def fit(
    parameters: list[nn.Parameter],
    feed: Callable[[], None],
    loss: Callable[[], Tensor],
    *,
    steps: int,
    peak: float,
    weight_decay: float,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Minimise `loss()`, whose inputs `feed()` fills in place; on a card a step is one replayed CUDA graph."""
    cuda = parameters[0].is_cuda
    rate = torch.tensor(peak, device=parameters[0].device)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=rate,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        capturable=cuda,
        fused=cuda,
        foreach=False,
    )

    def update() -> Tensor:
        value = loss()
        optimizer.zero_grad(set_to_none=False)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        return value.detach()

    feed()
    step = graphed(update) if cuda else update
    for number in range(steps):
        rate.fill_(learning_rate(number / steps, peak))
        feed()
        value = step()
        after(number + 1)
        if number % 500 == 0 or number == steps - 1:
            print(f"step {number + 1} of {steps}: loss {float(value):.4f}", flush=True)


def learning_rate(done: float, peak: float) -> float:
    """Warm-up over the first 2 %, then half a cosine down to 2 % of the peak."""
    warm = min(1, done / 0.02 + 1e-3)
    return peak * warm * (0.98 * 0.5 * (1 + math.cos(math.pi * done)) + 0.02)


def graphed(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The step as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # lets the optimizer and cuDNN settle before they are recorded
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()

    def replay() -> Tensor:
        graph.replay()
        return value

    return replay


class Average:
    """A running average of weights: the average is what ships."""

    EVERY, DECAY = 10, 0.9995

    def __init__(self, parameters: list[nn.Parameter]):
        self.parameters = parameters
        self.mean = [p.detach().clone() for p in parameters]

    def __call__(self, step: int) -> None:
        if step % self.EVERY == 0:
            decay = min(self.DECAY**self.EVERY, 1 - 1 / (step / self.EVERY + 1))
            torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        for parameter, mean in zip(self.parameters, self.mean, strict=True):
            parameter.copy_(mean)

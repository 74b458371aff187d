"""How often: a person's unit ("10%", "2 epochs", 200) becomes a number of steps once, and `due` does the rest."""


def steps_of(every: int | str, *, total: int, per_epoch: int) -> int:
    """Steps between two acts, at least 1; 0 for never.

    >>> (
    ...     steps_of("10%", total=200, per_epoch=8),
    ...     steps_of("2 epochs", total=200, per_epoch=8),
    ...     steps_of("off", total=200, per_epoch=8),
    ... )
    (20, 16, 0)
    """
    text = str(every).strip()
    if text in ("off", "0"):
        return 0
    if text.endswith("%"):
        return max(1, round(float(text[:-1]) / 100 * total))
    if "epoch" in text:
        return max(1, round(float(text.partition("epoch")[0]) * per_epoch))
    return int(text)


def due(step: int, every: int, total: int) -> bool:
    """Whether a periodic act happens after `step`; the last step always counts.

    >>> [step for step in range(11) if due(step, 4, 10)]
    [4, 8, 10]
    """
    return every > 0 and step > 0 and (step % every == 0 or step == total)

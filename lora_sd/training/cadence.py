"""How often: a person's unit ("10%", "2 epochs", 200, "5 minutes") becomes steps or seconds once, and `Act` does the rest."""

from collections.abc import Callable

from ..settings import MINUTES


def steps_of(every: int | str, *, total: int, per_epoch: float) -> int:
    """Steps between two acts, at least 1; 0 for never and for minutes. `per_epoch` is how many steps an epoch has.

    >>> (
    ...     steps_of("10%", total=200, per_epoch=8),
    ...     steps_of("2 epochs", total=200, per_epoch=8),
    ...     steps_of("off", total=200, per_epoch=8),
    ... )
    (20, 16, 0)
    """
    text = str(every).strip()
    if text in ("off", "0") or MINUTES.match(text):
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


class Act:
    """Something that a run does again and again, every so many steps or minutes, and after its last step.

    `clock` gives the seconds that the run has trained, in all its processes one after the other: an act by the clock is due
    when those go over a multiple of its minutes, so a resumed run goes on with it where it was.
    """

    def __init__(
        self,
        every: int | str,
        *,
        steps_of: Callable[[int | str], int],
        total: int,
        clock: Callable[[], float],
    ):
        minutes = MINUTES.match(str(every).strip())
        self.seconds = 60 * float(minutes[1]) if minutes else 0.0
        self.steps = steps_of(every)
        self.total, self.clock = total, clock
        self.marks = self._marks()

    @property
    def ever(self) -> bool:
        return bool(self.seconds or self.steps)

    def due(self, step: int) -> bool:
        """Whether it happens after `step`. By the clock, processes may think otherwise: they have to agree."""
        if self.seconds:
            return step == self.total or self._marks() > self.marks
        return due(step, self.steps, self.total)

    def ends_bunch(self, step: int) -> bool:
        """Whether it is due after `step` as far as steps tell."""
        return not self.seconds and self.due(step)

    def done(self) -> None:
        """It has happened."""
        self.marks = self._marks()

    @property
    def times(self) -> int:
        """How often it happens in the whole run; by the clock, once as far as one can know."""
        return -(-self.total // self.steps) if self.steps else int(self.ever)

    def _marks(self) -> int:
        return int(self.clock() // self.seconds) if self.seconds else 0

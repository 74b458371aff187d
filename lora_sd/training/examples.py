"""Which pictures a run looks at, how often, and how their captions are worded: from settings to examples."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from .. import events, length
from ..data import masks
from ..data.folder import NONE, Example, find_examples
from ..data.variants import Wording
from ..paths import shown
from ..settings import CaptionSettings, DataSettings, Folder, ValidateSettings

OnNote = Callable[[str], None]
FEW = 5  # pictures: fewer can hardly be told from what they show


def find(
    data: DataSettings,
    captions: CaptionSettings,
    held_out: ValidateSettings,
    seed: int,
    *,
    on_note: OnNote,
    memory: Path | None = None,
) -> tuple[list[Example], list[Example]]:
    """The pictures to train on and those to hold out; in the file `memory` it is remembered which are good."""
    if not data.images and not data.folders:
        raise ValueError("data.images is not set; give the folder of pictures to learn from.")

    def look(folder: Folder, repeats: Mapping[str, int] = NONE) -> list[Example]:
        return _find_in(folder, data, captions, on_note, repeats, memory)

    found = look(Folder(path=data.images, masks=data.masks), data.repeats) if data.images else []
    found += [example for folder in data.folders for example in look(folder)]
    if held_out.images:
        train_on, apart = found, look(Folder(path=held_out.images))
    else:
        train_on, apart = split(found, held_out.split, seed)
    for note in doubts(train_on):
        on_note(note)
    if data.regularisation:
        train_on = train_on + prior(train_on, data, data.regularisation, on_note=on_note, memory=memory)
    return train_on, apart


def doubts(examples: list[Example]) -> list[str]:
    """What a person should know of pictures that can teach little: hardly any, or all under one caption."""
    count = len(examples)
    few = (
        "There is one picture, so the LoRA can't tell what matters in it from what does not, and will soon only repeat it"
        if count == 1
        else f"There are only {count} pictures, which the LoRA will soon only repeat"
    )
    said = []
    if count < FEW:
        said.append(
            f"{few}; an early file, or a strength below 1, is often the best of it. 15 to 30 varied pictures do better."
        )
    captions = {example.caption for example in examples}
    if count > 1 and len(captions) == 1 and not any(example.wording.wildcards for example in examples):
        said.append(
            f"Every picture has the same caption, {shown(captions.pop())!r}: all that they have in common is learned "
            "under it, backgrounds and poses as well. Captions of what each shows besides keep that apart."
        )
    return said


def _find_in(
    folder: Folder,
    data: DataSettings,
    captions: CaptionSettings,
    on_note: OnNote,
    repeats: Mapping[str, int],
    memory: Path | None,
) -> list[Example]:
    trigger = data.trigger if folder.trigger is None else folder.trigger
    found = find_examples(
        folder.path,
        trigger=trigger,
        captions=data.captions,
        lines=captions.lines,
        on_bad_image=data.on_bad_image,
        own_repeats=repeats,
        memory=memory,
    )
    for path, why in found.skipped:
        on_note(f"{events.WITHOUT} {path.name}: {why}")
    for note in found.notes:
        on_note(note)
    examples = [
        replace(
            example,
            repeats=example.repeats * folder.repeats,
            weight=folder.weight,
            flip=data.flip if folder.flip is None else folder.flip,
            wording=wording(captions, trigger, captions.prefix if folder.prefix is None else folder.prefix),
            mask=example.path if data.alpha_mask else None,
            root=Path(folder.path),
        )
        for example in found.examples
    ]
    return masks.with_masks(examples, folder.masks, on_note) if folder.masks else examples


def wording(settings: CaptionSettings, trigger: str, prefix: str) -> Wording:
    return Wording(
        prefix=prefix,
        suffix=settings.suffix,
        shuffle=settings.shuffle,
        keep=int(bool(trigger.strip())) if settings.keep is None else settings.keep,
        separator=settings.keep_separator.strip(),
        tag_dropout=settings.tag_dropout,
        dropout=settings.dropout,
        wildcards=settings.wildcards,
        trigger=trigger,
    )


def prior(
    subjects: list[Example],
    data: DataSettings,
    folder: str | Path,
    *,
    on_note: OnNote,
    memory: Path | None = None,
    at_most: int | None = None,
) -> list[Example]:
    """Regularisation pictures (arXiv:2208.12242, section 3.2), in an epoch as many as pictures of the subject.

    They are the first `at_most` of `folder`, or all.
    """
    found = find_examples(
        folder,
        trigger=data.regularisation_caption,
        trigger_setting="data.regularisation_caption",
        captions=data.captions,
        on_bad_image=data.on_bad_image,
        memory=memory,
    )
    pictures = found.examples[:at_most]
    wanted = sum(example.repeats for example in subjects)
    shares = shared_out(wanted, len(pictures))
    used = [
        replace(
            example,
            repeats=times,
            weight=data.regularisation_weight,
            prior=True,
            root=Path(folder),
        )
        for example, times in zip(pictures, shares, strict=True)
        if times
    ]
    on_note(
        f"Beside {wanted} pictures an epoch has as many for regularisation: {len(used)} of {len(shares)} that there are, "
        f"{max(shares)} times at most. It is twice as many steps."
    )
    return used


def shared_out(wanted: int, count: int) -> list[int]:
    """How often each of `count` things is taken to make `wanted`, as evenly as can be.

    >>> shared_out(5, 3), shared_out(2, 4)
    ([1, 2, 2], [0, 1, 0, 1])
    """
    return [(number + 1) * wanted // count - number * wanted // count for number in range(count)]


def split(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(to train on, to hold out): at least one of each where `share` is not 0; which ones is a function of `seed`."""
    count = length.held_out(len(examples), share)
    if share and count < 1:
        raise ValueError(
            f"validate.split is {share:g} of {len(examples)} picture; add pictures or set it to 0."
        )
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    held = set(order[:count])
    return [e for i, e in enumerate(examples) if i not in held], [
        e for i, e in enumerate(examples) if i in held
    ]

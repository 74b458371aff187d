"""What the grid of the Images page shows: everything of a project's pictures as one value for static/images.js."""

import contextlib
from pathlib import Path
from typing import Any

from lora_sd import config as cfg
from lora_sd.data.buckets import Fit
from lora_sd.data.captions import with_trigger_in_each
from lora_sd.files import changed
from lora_sd.models import tokens

from . import batch, captions, checks, epoch, history, seen, sheet, story, view
from .checks import Card, Finding
from .project import USUAL, Project
from .seen import Seen
from .sheet import Sheet
from .words import say


def draw(project: Project) -> dict[str, Any]:
    """Pictures, findings, tags, and what can be undone; `unseen` are pictures that were not looked at yet."""
    paths = project.pictures()
    names = [project.name_of(path) for path in paths]
    texts, problem = _captions(project, paths)
    facts, trigger = _plan(project)
    memory, uses = seen.memory(project), project.uses()
    looked = {path: Seen(*memory[path]) for path in paths if path in memory}
    sizes = {path: epoch.size_of(path, changed(path)) for path in paths}
    placed = _placed(facts, [size for size in sizes.values() if size])
    fits = {path: next(placed, None) if size else None for path, size in sizes.items()}
    worded = [with_trigger_in_each(texts.get(path, ""), trigger) for path in paths]
    counts = tokens.counts(worded, starter=bool(facts and facts.base.starter))
    cards = [
        Card(
            name,
            uses.get(name, USUAL)["on"],
            texts.get(path, ""),
            count,
            sizes[path],
            fits[path],
            looked.get(path),
        )
        for name, path, count in zip(names, paths, counts, strict=True)
    ]
    second = checks.doubles(cards)
    thumbs = {path: seen.there(path, project) for path in paths}
    unseen = [
        project.name_of(path)
        for path in paths
        if path not in looked or not (thumbs[path] or looked[path].problem)
    ]
    return {
        "project": project.name,
        "trigger": trigger,
        "problem": problem,
        "notice": running(project),
        "pictures": [
            _card(card, uses.get(card.name, USUAL)["times"], second)
            | {"src": view.url(thumbs[path]) if thumbs[path] else ""}
            for card, path in zip(cards, paths, strict=True)
        ],
        "findings": [_finding(one) for one in checks.findings(cards, trigger)],
        "tags": batch.frequency([card.caption for card in cards if card.caption]),
        "unseen": unseen,
        **can_undo(project),
    }


def _captions(project: Project, paths: list[Path]) -> tuple[dict[Path, str], str]:
    """Those that can be read, and what is wrong with the first file that can't be."""
    try:
        return captions.read(project, paths), ""
    except ValueError as error:
        texts: dict[Path, str] = {}
        for path in paths:
            with contextlib.suppress(ValueError):
                texts |= captions.read(project, [path])
        return texts, str(error)


def _plan(project: Project) -> tuple[Sheet | None, str]:
    """The facts of Make, None where its model is gone; and the trigger word."""
    choices = project.choices()
    with contextlib.suppress(ValueError):
        facts = sheet.fill(project, choices)
        return facts, facts.trigger.strip()
    return None, (choices.trigger or "").strip()


def _placed(facts: Sheet | None, sizes: list[Any]) -> Any:
    with contextlib.suppress(ValueError):  # settings that are wrong are told on Make
        return iter(facts.fits(sizes) if facts else [])
    return iter([])


def _card(card: Card, times: int, second: dict[str, str]) -> dict[str, Any]:
    return {
        "name": card.name,
        "on": card.on,
        "times": times,
        "size": card.size,
        "crop": _crop(card.fit) if card.fit else None,
        "bucket": card.fit.bucket if card.fit else None,
        "tokens": card.tokens,
        "warnings": checks.warnings(card, second) if card.on else [],
        **caption(card.caption),
    }


def caption(text: str) -> dict[str, str]:
    return {"caption": text, "mark": captions.mark(text)}


def _crop(fit: Fit) -> list[float]:
    """Left, top, width and height of what is kept, as percent of the picture."""
    (w, h), (resized_w, resized_h), (left, top) = fit
    shares = (left / resized_w, top / resized_h, w / resized_w, h / resized_h)
    return [round(100 * share, 2) for share in shares]


def _finding(found: Finding) -> dict[str, Any]:
    return found._asdict()


def running(project: Project) -> str:
    """What to know while a run on these pictures goes on, or nothing."""
    current = story.active()
    if current is None:
        return ""
    with contextlib.suppress(ValueError, OSError):
        if cfg.load(current.folder / "config.toml").data.images == str(project.images):
            return say(
                "A training of these pictures is going on. It has read them already: what you change counts for the "
                "next one, and should this one have to be resumed, it will say what has changed."
            )
    return ""


def can_undo(project: Project) -> dict[str, str]:
    """What the buttons say; an empty text where there is nothing to undo or to do again."""
    told = history.of(project)
    return {
        "undo": _told(told.done[-1]) if told.done else "",
        "redo": _told(told.undone[-1]) if told.undone else "",
    }


def _told(changes: list[history.Change]) -> str:
    count, what = len(changes), {change.what for change in changes}
    if count == 1:
        name = changes[0].name
        return {
            "caption": say("the caption of {name}", name=name),
            "on": say("whether {name} is used", name=name),
            "times": say("how often {name} counts", name=name),
        }[changes[0].what]
    if what == {"caption"}:
        return say("{n} captions", n=count)
    return say("{n} pictures", n=count)


def words() -> dict[str, str]:
    """What static/images.js says, in the reader's language."""
    return {
        "all": say("All"),
        "warnings": say("Warnings"),
        "uncaptioned": say("No caption"),
        "off": say("Off"),
        "search": say("Search names and captions"),
        "undo": say("Undo"),
        "redo": say("Redo"),
        "undo_what": say("Undo {what}"),
        "redo_what": say("Do again: {what}"),
        "crop": say("Show crop"),
        "edit": say("Edit captions"),
        "check": say("Check"),
        "words": say("Words"),
        "no_words": say("No captions yet."),
        "looking": say("Looking at the pictures: {done} of {total}"),
        "nothing_found": say("Nothing to mend."),
        "show": say("Show"),
        "shown": say("{n} of {total} shown"),
        "everything": say("Show all"),
        "use": say("Use"),
        "times": say("Repeats"),
        "mask": say("Mask"),
        "mask_of": say("Paint a mask for {name}"),
        "caption": say("Caption of {name}"),
        "no_caption": say("No caption"),
        "trigger_stands_in": say("No caption: {trigger} stands in"),
        "saving": say("Saving…"),
        "saved": say("Saved"),
        "unsaved": say("Not saved yet"),
        "failed": say("FAILED to save: {why}"),
        "no_answer": say("the program does not answer. Your text is still here."),
        "again": say("Try again"),
        "theirs": say("Changed in another window to:"),
        "empty": say("(nothing)"),
        "use_mine": say("Use mine"),
        "use_theirs": say("Use theirs"),
        "tokens": say("{n} tokens"),
        "unread": say("It can't be shown."),
        "off_mark": say("Not used"),
        "none": say("No pictures yet. Add some on Make; they show up here."),
        "none_fit": say("No picture fits this search."),
        "keys": say(
            "Keys: Tab to a caption, Ctrl+Enter to the next one. On a card, arrows move and Delete leaves it out."
        ),
        "how": say("What to do"),
        "start": say("Add a word at the start"),
        "end": say("Add a word at the end"),
        "remove": say("Remove a word"),
        "replace": say("Find and replace"),
        "first": say("Put a word first"),
        "shuffle": say("Shuffle the tags"),
        "sort": say("Sort the tags"),
        "clear": say("Clear the captions"),
        "word": say("Word"),
        "find": say("Find"),
        "with": say("Replace with"),
        "exact": say("Match case"),
        "of_shown": say("It changes the captions of the {n} pictures shown."),
        "preview": say("Preview"),
        "apply": say("Apply"),
        "cancel": say("Cancel"),
        "one_changes": say("1 caption changes"),
        "change": say("{n} captions change"),
        "no_change": say("No caption changes."),
        "more": say("and {n} more"),
        "before": say("Before"),
        "after": say("After"),
        "close": say("Close"),
        "kept": say("Changed elsewhere since, so left as it is: {names}."),
    }

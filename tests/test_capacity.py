"""What a run takes of the machine's memory, beside what other programs hold."""

import pytest

from app import capacity, plan
from app.capacity import GB, Base, Machine
from app.form import with_defaults
from lora_sd.footprint import RUNGS

SDXL = Base("/models/sdxl.safetensors", "SDXL", "sdxl")
SD15 = Base("/models/sd15.safetensors", "SD 1.5", "sd15")


def needed(machine: Machine, base: Base = SDXL, **changes) -> capacity.Needed:
    settings = with_defaults(plan.settings("Subject", "Balanced", base, 20)) | changes
    return capacity.memory(base, machine, settings)


def test_the_parts_are_the_whole_and_the_ladder_holds_what_was_taken():
    taken = needed(Machine("cuda", "A card", 12 * GB))
    assert round(sum(taken.parts)) == taken.size
    assert dict(taken.ladder)[taken.rung] == taken.size
    sizes = [size for _, size in taken.ladder]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == len(RUNGS)


def test_what_other_programs_hold_leaves_less_and_takes_a_lower_rung():
    alone, beside = (Machine("cuda", "A card", 24 * GB, free * GB) for free in (24, 9))
    assert beside.others == 15 * GB and capacity.usable(beside) == 9 * GB - capacity.DRIVER
    assert needed(alone).rung == RUNGS[0] and needed(beside).rung == RUNGS[1]


def test_while_ours_hold_some_of_it_the_usual_share_is_kept_for_others():
    machine = Machine("cuda", "A card", 24 * GB)
    assert machine.others is None
    assert capacity.usable(machine) == round(0.92 * 24 * GB) - capacity.DRIVER


def test_a_run_that_fits_only_without_other_programs_says_to_close_them():
    settings = with_defaults(plan.settings("Subject", "Balanced", SD15, 20))
    for free, words in ((1, "close some"), (8, "")):
        machine = Machine("cuda", "A card", 8 * GB, free * GB)
        told = plan.lines("Subject", "Balanced", SD15, 20, machine, settings)
        [line] = [line for line in told if line.leads == plan.MEMORY]
        assert line.warning == bool(words) and words in line.why


def test_what_is_proposed_does_not_hang_on_what_else_is_open_right_now():
    busy = Machine("cuda", "A card", 24 * GB, 2 * GB)
    assert plan.propose([SD15, SDXL], busy)[0] == SDXL.source


@pytest.mark.parametrize("base", [Base("/odd", "Odd", None), Base("starter", "Starter model", "sd15")])
def test_nothing_is_made_up_where_it_is_not_counted(base):
    taken = needed(Machine("cuda", "A card", 24 * GB), base)
    assert taken is None if base.family is None else (taken.parts, taken.ladder) == (None, ())

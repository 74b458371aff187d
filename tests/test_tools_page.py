"""The forms of Tools: what each tool shows, and what the buttons of a result lead to."""

import pytest

from app import desk, pages, tools_page
from app.tools_act import ACTS, MOST_LORAS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_SD_HOME", str(tmp_path_factory.mktemp("home")))
        built = []
        patch.setattr(tools_page, "wire", built.append)
        pages.build()
    return built[0]


def visible(page, updates) -> set[str]:
    return {name for name, form in page.forms.items() if updates[form]["visible"]}


def test_every_tool_has_its_form_and_its_words(page):
    assert [tool for _, tool in tools_page.TOOLS] == list(ACTS) == list(page.forms)
    for tool in ACTS:
        updates = tools_page.choose(page, tool, 2, "")
        assert visible(page, updates) == {tool} and updates[page.go]["value"]
        rows = sum(updates[row]["visible"] for row in page.rows)
        assert rows == (1 if tool in ("combine", "merge") else 0)


def test_rows_of_loras_come_one_by_one(page):
    updates = tools_page.choose(page, "combine", MOST_LORAS, "")
    assert all(updates[row]["visible"] for row in page.rows) and not updates[page.more]["visible"]


def test_the_button_of_a_result_fills_the_form_of_shrink(page):
    updates = tools_page.answered(page, {"act": "shrink", "rank": "6"}, 2)
    assert updates[page.tool] == "shrink" and visible(page, updates) == {"shrink"}
    assert (updates[page.fields["rank"]]["value"], updates[page.fields["by"]]) == (6, "rank")


def test_what_can_not_be_begun_is_a_sentence_in_the_page(page, monkeypatch):
    monkeypatch.setattr(desk, "current", desk.Desk())
    values = {name: getattr(part, "value", "") for name, part in page.inputs().items()}
    shown = tools_page.begin(page, values | {"lora": ""})[page.state]
    assert shown["children"] == ["Choose a LoRA."] and not desk.current.running
    assert tools_page.restate(page, values | {"lora": ""})[page.command] == "Choose a LoRA."

"""Markdown tables: their exact text, and cells that would break a table."""

from __future__ import annotations

import pytest

from melcap.markdown import table


def test_columns_of_numbers_are_aligned_right() -> None:
    assert table(["codec", "kbps", "ViSQOL"], [["melcap", 3.36, "4.4"], ("Opus", 6, None)], 1) == (
        "| codec | kbps | ViSQOL |\n"
        "| --- | ---: | ---: |\n"
        "| melcap | 3.36 | 4.4 |\n"
        "| Opus | 6 | None |\n"
    )


def test_without_columns_of_numbers_all_are_aligned_left() -> None:
    assert table(["a", "b"], []) == "| a | b |\n| --- | --- |\n"


def test_bars_and_line_breaks_do_not_end_a_cell() -> None:
    assert table(["a|b"], [["one | two\nthree"], [""]]).splitlines() == [
        "| a\\|b |",
        "| --- |",
        "| one \\| two three |",
        "|  |",
    ]


@pytest.mark.parametrize("row", [[], ["only one"], ["one", "two", "three"]])
def test_a_row_of_another_length_is_refused(row: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{len(row)} cells, but there are 2 titles"):
        table(["a", "b"], [["one", "two"], row])

from __future__ import annotations

from sqlflow_submitter.errors import MAX_LISTED, listing, shortened, unknown_name


def test_a_list_has_whole_names_and_counts_the_others() -> None:
    names = [f"column_{number}_{'x' * 90}" for number in range(100)]
    message = unknown_name("column", "colour", names)
    listed, _, more = message.partition("(known: ")[2].removesuffix(" more)").rpartition(" and ")
    shown = listed.split(", ")
    assert set(shown) <= set(names)
    assert len(shown) + int(more) == 100
    assert len(listed) <= MAX_LISTED
    assert listing(["a", 2], 5) == "a, 2"
    assert listing(["a", 2], 1) == "a and 1 more"
    assert listing(["é" * 2 * MAX_LISTED, "b"], 5) == "é" * MAX_LISTED + "… and 1 more"


def test_a_message_is_cut_between_words() -> None:
    assert shortened("a b", 3) == "a b"
    assert shortened("one two three", 10) == "one two …"
    assert shortened("é" * 11, 10) == "é" * 10 + " …"

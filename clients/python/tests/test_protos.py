"""The vendored messages."""

import generate_protos


def test_generated_modules_are_up_to_date() -> None:
    assert generate_protos.stale() == [], "run generate_protos.py"

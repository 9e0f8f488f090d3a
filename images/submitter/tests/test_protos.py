import sys

from data_process import PACKAGE

sys.path.insert(0, str(PACKAGE))

import generate_protos


def test_generated_modules_are_up_to_date() -> None:
    assert generate_protos.stale() == [], "run generate_protos.py"

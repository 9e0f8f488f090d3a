"""XGBoost errors and warnings are printed in one line."""

import warnings

import pytest
from xgboost.core import XGBoostError

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.xgb.errors import reason, translated_errors


def test_warning_is_printed_once_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with translated_errors():
            warnings.warn(
                '[05:44:20] WARNING: /src/learner.cc:825: \nParameters: { "x" } are not used.\n\n', stacklevel=1
            )
    assert capsys.readouterr().err == 'warning: xgboost: Parameters: { "x" } are not used.\n'


@pytest.mark.parametrize(
    "text",
    [
        "[05:44:20] /src/objective.cu:40: Check failed: is_valid: the reason\nStack trace:\n  [bt] (0) /lib/x.so",
        "[05:44:20] /src/a.cc:40: Check failed: a::b == c (1 vs. 2) : the reason\nStack trace:\n",
        "the reason\n",
    ],
)
def test_error_is_reduced_to_its_sentence(text: str) -> None:
    assert reason(text) == "the reason"
    with pytest.raises(UserError, match=r"^xgboost: the reason$"), translated_errors():
        raise XGBoostError(text)

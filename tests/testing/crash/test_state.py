from __future__ import annotations

from tinker_actors.testing.crash.state import EndState, difference

A, B, C, STEP = (
    ("forward_backward", "a"),
    ("forward_backward", "b"),
    ("forward_backward", "c"),
    ("optim_step", "s"),
)
EXPECTED = EndState((A, STEP, B, C, STEP), {"at": 2})


def found(*parts: tuple[str, str], loop: object = None) -> str | None:
    return difference(EXPECTED, EndState(parts, {"at": 2} if loop is None else loop))


def test_the_same_end_is_no_difference() -> None:
    """Everything in order, and the loop where it should be."""
    assert found(*EXPECTED.applied) is None


def test_what_differs_is_named_by_its_step() -> None:
    """Steps are counted from 1, as a user does."""
    assert found(A, STEP) == "the model: step 2 missing"
    assert found(A, STEP, A, STEP, B, C, STEP) == "the model: step 1 doubled"
    assert found() == "the model: steps 1, 2 missing"
    assert found(B, C, STEP, A, STEP) == "the model: its steps stand in another order"
    assert found(*EXPECTED.applied, A) == "the model: 1 gradients stand behind its last step"
    said = "the model: step 2 missing, 1 of its steps the uninterrupted run does not have"
    assert found(A, STEP, B, STEP) == said


def test_a_loop_that_stands_elsewhere_is_told() -> None:
    """The model may be right, and the loop state wrong."""
    assert found(*EXPECTED.applied, loop={"at": 1}) == "the loop state is {'at': 1} instead of {'at': 2}"

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.number import Numbers


def test_numbers_go_up_and_come_back() -> None:
    """The lowest free one is the next."""
    numbers = Numbers(1)
    assert [numbers.take() for _ in range(4)] == [1, 2, 3, 4]
    numbers.give_back(4)
    numbers.give_back(2)
    assert [numbers.take() for _ in range(3)] == [2, 4, 5]
    assert numbers.next_new == 6


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), max_size=30))
def test_there_is_never_a_hole_below_a_used_number_for_long(waves: list[list[bool]]) -> None:
    """Whatever of each wave of requests is refused: the next ones fill what was left, and none is used twice."""
    numbers, used = Numbers(0), set[int]()
    for wave in waves:
        taken = [numbers.take() for _ in wave]
        assert used.isdisjoint(taken)
        assert len(set(taken)) == len(taken)
        for number, accepted in zip(taken, wave, strict=True):
            if accepted:
                used.add(number)
            else:
                numbers.give_back(number)
    holes = set(range(numbers.next_new)) - used
    assert {numbers.take() for _ in holes} == holes


def test_numbers_of_a_model_go_on_where_others_left_them() -> None:
    """What came back to them is the first to be given out again, lowest first; and it is told which those are."""
    numbers = Numbers.of(5, free=(3, 1))
    assert numbers.free == (1, 3)
    assert numbers.freed((3, 4)) == (3,)
    assert [numbers.take() for _ in range(3)] == [1, 3, 5]
    assert (numbers.free, numbers.freed((1, 3))) == ((), ())
    assert Numbers.of(1).take() == 1

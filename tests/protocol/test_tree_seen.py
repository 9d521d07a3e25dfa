from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.tree_seen import (
    MOST_PAST,
    ActorSeen,
    MailboxSeen,
    PastSeen,
    RunningSeen,
    SupervisorSeen,
    TreeDifference,
    TreePicture,
    TreeSeen,
)
from tinker_actors.protocol.wait import WaitSeen

WAIT = WaitSeen("m", "OptimStep", "r", 3.0, "active", "", 1)


def actor(path: str, **facts: object) -> ActorSeen:
    return ActorSeen(**{"path": path, "life": "running", "mailbox": path, **facts})


def past(*seqs: int) -> tuple[PastSeen, ...]:
    return tuple(PastSeen(message="M", seq=seq, at=float(seq)) for seq in seqs)


def tree(*actors: ActorSeen, boxes: tuple[MailboxSeen, ...] = ()) -> TreeSeen:
    root = SupervisorSeen(path="root", strategy="one_for_one")
    return TreeSeen(number=0, supervisors=(root,), actors=actors, mailboxes=boxes)


def test_the_first_picture_is_whole_and_the_next_has_what_is_new() -> None:
    """What has not changed is left out, what is gone is named, and who waits is always told."""
    difference = TreeDifference()
    before = tree(actor("a"), actor("b"))
    assert difference.after(before) == attrs.evolve(before, number=1, whole=True)
    assert difference.after(before) == TreeSeen(number=2)
    now = attrs.evolve(tree(actor("b", incarnation=2), actor("c")), waits=(WAIT,))
    assert difference.after(now) == TreeSeen(
        number=3, actors=(actor("b", incarnation=2), actor("c")), gone=("a",), waits=(WAIT,)
    )
    assert difference.after(now, whole=True) == attrs.evolve(now, number=4, whole=True)


def test_a_message_that_runs_is_no_news() -> None:
    """It is shown with its beginning, which stays."""
    difference = TreeDifference()
    busy = tree(actor("a", running=(RunningSeen(message="M", seq=1, since=5.0, waiting_on=("b",)),)))
    difference.after(busy)
    assert difference.after(busy).actors == ()


def test_of_ended_messages_only_new_ones_are_told() -> None:
    """As far as it is known which are: if none of those that were known is left, all are new."""
    difference = TreeDifference()
    told = []
    for seqs in [(), (1, 2), (1, 2, 3), (2, 3, 5, 4), (7, 8), (7, 8)]:
        seen = tree(boxes=(MailboxSeen(path="a", past=past(*seqs)),))
        told.append([one.seq for box in difference.after(seen).mailboxes for one in box.past])
    assert told == [[], [1, 2], [3], [5, 4], [7, 8], []]


paths = st.sampled_from(["root/a", "root/b", "root/c"])
steps = st.lists(
    st.tuples(st.dictionaries(paths, st.integers(0, 3), max_size=3), st.integers(0, 15), st.booleans()),
    max_size=12,
)


@given(steps)
def test_what_is_taken_apart_is_put_together_again(
    steps: list[tuple[dict[str, int], int, bool]],
) -> None:
    """Whatever comes, changes and goes, a reader that begins with a whole picture sees what there was."""
    difference, picture, late = TreeDifference(), TreePicture(), TreePicture()
    ended = 0
    for at, (actors, count, whole) in enumerate(steps):
        ended += count
        ring = past(*range(max(0, ended - MOST_PAST), ended))
        pool = MailboxSeen(path="root", admitted=ended, past=ring)
        seen = tree(*(actor(path, incarnation=number) for path, number in actors.items()), boxes=(pool,))
        written = difference.after(seen, whole=whole)
        assert picture.add(written)
        fits = late.add(written) if at else False
        for one in (picture, late) if fits else (picture,):
            assert one.actors == {known.path: known for known in seen.actors}
            assert one.mailboxes == {"root": pool}
            assert one.whole().number == at + 1


@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=3), max_size=8))
def test_a_path_that_went_and_came_back_has_nothing_of_before(
    lives: list[list[tuple[bool, int]]],
) -> None:
    """Between two pictures nobody sees it go; its messages are those of the new one, and it is whole."""
    difference, picture = TreeDifference(), TreePicture()
    ended, first = 0, 0  # messages of all lives, and of those before the present one
    for looks in lives:
        for anew, count in looks:
            first = ended if anew else first
            ended += count
            box = MailboxSeen(path="a", capacity=8, past=past(*range(max(first, ended - MOST_PAST), ended)))
            seen = tree(actor("a"), actor("b"), boxes=(box,))
            assert picture.add(difference.after(seen))
            assert picture.mailboxes == {"a": box}
            assert set(picture.actors) == {"a", "b"}


def test_a_busy_mailbox_is_not_told_as_a_new_one() -> None:
    """More messages than are shown have ended since; nothing but them is written."""
    difference = TreeDifference()
    for start in (0, MOST_PAST):
        box = MailboxSeen(path="a", past=past(*range(start, start + MOST_PAST)))
        written = difference.after(tree(actor("a"), boxes=(box,)))
    assert written == TreeSeen(number=2, mailboxes=(box,))


def test_what_does_not_follow_is_not_taken_in() -> None:
    """Only a whole picture helps, and brings nothing of what was before."""
    picture = TreePicture()
    with pytest.raises(ValueError, match="no whole picture"):
        picture.whole()
    assert not picture.add(TreeSeen(number=2))
    assert picture.add(TreeSeen(number=5, whole=True, actors=(actor("a"),)))
    assert not picture.add(TreeSeen(number=7, gone=("a",)))
    assert picture.add(TreeSeen(number=6, waits=(WAIT,)))
    assert picture.whole() == TreeSeen(number=6, whole=True, actors=(actor("a"),), waits=(WAIT,))
    assert picture.add(TreeSeen(number=1, whole=True))
    assert picture.whole() == TreeSeen(number=1, whole=True)


def test_a_pool_whose_workers_are_gone_is_still_there() -> None:
    """A path goes only when nothing has it any more, and then everything that had it goes."""
    difference, picture = TreeDifference(), TreePicture()
    group = SupervisorSeen(path="pool", strategy="dynamic")
    box = MailboxSeen(path="pool", queued=3)
    worker = actor("pool/0", mailbox="pool")
    picture.add(
        difference.after(TreeSeen(number=0, supervisors=(group,), actors=(worker,), mailboxes=(box,)))
    )
    picture.add(difference.after(TreeSeen(number=0, supervisors=(group,))))
    assert (picture.supervisors, picture.actors, picture.mailboxes) == ({"pool": group}, {}, {"pool": box})
    picture.add(difference.after(TreeSeen(number=0)))
    assert (picture.supervisors, picture.actors) == ({}, {})

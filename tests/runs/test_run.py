"""A run, from its first step to its last, in one life or in several."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.runs.loop import ADAM, NEVER, Left, Loop, batch, opened, weights_of
from tinker_actors import CheckpointPolicy, Datum, ModelInput, Run, RunStep
from tinker_actors.errors import BadRequestError, InputError, RunLocked, RunMismatch
from tinker_actors.protocol.custom_loss import CustomLoss

Leave = Callable[[Run, RunStep], Awaitable[None]]


def state(step: RunStep) -> dict[str, int]:
    """Say where the loop stands after a step."""
    return {"next": step.index + 1}


async def before(run: Run, step: RunStep) -> None:
    """Leave when nothing of the step was decided."""
    raise Left


async def decided(run: Run, step: RunStep) -> None:
    """Leave as soon as the step is decided, before anything came back."""
    await step.train(batch(step.index), "cross_entropy", ADAM, after=state(step))
    raise Left


async def done(run: Run, step: RunStep) -> None:
    """Leave when the step has its result."""
    await (await step.train(batch(step.index), "cross_entropy", ADAM, after=state(step)))
    raise Left


async def stray(run: Run, step: RunStep) -> None:
    """Leave with a gradient that no step has applied."""
    await step.forward_backward(batch(99), "cross_entropy")
    raise Left


async def stray_done(run: Run, step: RunStep) -> None:
    """Leave when that gradient has been computed."""
    await (await step.forward_backward(batch(99), "cross_entropy"))
    raise Left


async def saving(run: Run, step: RunStep) -> None:
    """Leave while a checkpoint is on its way."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.checkpoint)
        await trio.testing.wait_all_tasks_blocked()
        raise Left


async def saved(run: Run, step: RunStep) -> None:
    """Leave behind a checkpoint."""
    await run.checkpoint()
    raise Left


async def cancelled(run: Run, step: RunStep) -> None:
    """Be cancelled in the middle of a step, and leave."""
    with trio.move_on_after(0):
        await step.train(batch(step.index), "cross_entropy", ADAM, after=state(step))
    raise Left


LEAVES: list[Leave] = [before, decided, done, stray, stray_done, saving, saved, cancelled]


async def test_a_run_is_trained_in_one_go(autojump_clock: Any, tmp_path: Path) -> None:
    """Every step once, in order; then its state is that after the last one."""
    loop = Loop(tmp_path)
    point = await loop.live()
    assert (point.how, point.step, point.incarnation) == ("fresh", 0, 1)
    assert loop.seen == list(range(6))
    again = await loop.live()
    assert (again.step, again.incarnation) == (6, 2)
    assert loop.seen == list(range(6))


@pytest.mark.lesson("L33", "W7")
@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("policy", [NEVER, CheckpointPolicy(steps=2)])
async def test_left_and_resumed_it_is_the_same(
    autojump_clock: Any, tmp_path: Path, leave: Leave, policy: CheckpointPolicy
) -> None:
    """Wherever the loop is left: weights and optimizer bit for bit, and the loop's state of the last decided step."""
    whole = Loop(tmp_path / "whole", arguments={"checkpoints": policy})
    parts = Loop(tmp_path / "parts", arguments={"checkpoints": policy})
    await whole.live()
    for at in (0, 3, 5):
        with pytest.raises((Left, ExceptionGroup)):  # the group is that of a nursery in the body
            await parts.live(at, leave)
    point = await parts.live()
    assert point.how == "restored"
    assert point.step in (5, 6)
    assert parts.weights() == whole.weights()


async def test_what_was_done_before_a_checkpoint_is_not_done_again(
    autojump_clock: Any, tmp_path: Path
) -> None:
    """A resume starts from the newest one and sends only what came after it."""
    loop = Loop(tmp_path)
    with pytest.raises(Left):
        await loop.live(4, saved)
    point = await loop.live()
    assert (point.how, point.step, point.replayed) == ("restored", 4, 0)
    assert point.checkpoint is not None
    assert point.checkpoint.endswith(f"{tmp_path.name}-000004")


async def test_single_operations_make_a_step(autojump_clock: Any, tmp_path: Path) -> None:
    """Gradients, also those of a loss of one's own, and the step that applies them; the last of them decides."""

    def squares(data: Any, logprobs: Any) -> CustomLoss:
        loss = sum(float((one**2).sum()) for one in logprobs)
        return CustomLoss(loss, [2 * one for one in logprobs])

    async def live(folder: Path, fail_at: int) -> None:
        async with opened(folder) as run:
            async for step in run.steps(3):
                first = await step.forward_backward(batch(step.index), "cross_entropy")
                second = await step.forward_backward_custom(batch(10 + step.index), squares)
                assert not step.decided
                if step.index == fail_at:
                    raise Left
                optim = await step.optim_step(ADAM, after=state(step))
                assert step.decided
                assert run.loop_state == state(step)
                await first
                await second
                await optim

    await live(tmp_path / "whole", -1)
    with pytest.raises(Left):
        await live(tmp_path / "parts", 1)
    await live(tmp_path / "parts", -1)
    assert weights_of(tmp_path / "whole") == weights_of(tmp_path / "parts")


async def test_a_step_may_train_nothing(autojump_clock: Any, tmp_path: Path) -> None:
    """It counts, its state is kept, and the weights are those of the other steps."""

    async def skip(run: Run, step: RunStep) -> None:
        await step.skip(after=state(step), groups=["filtered"])

    loop = Loop(tmp_path)
    await loop.live(2, skip)
    assert loop.seen == [0, 1, 2, 3, 4, 5]
    async with opened(tmp_path) as run:
        assert run.decided == 6


async def test_a_step_that_decides_nothing_is_an_error(autojump_clock: Any, tmp_path: Path) -> None:
    """The loop would go round for ever."""
    with pytest.raises(
        RuntimeError, match=r"step 0 ended without a decision: its body must call step\.train"
    ):
        async with opened(tmp_path) as run:
            async for step in run.steps(3):
                await step.forward_backward(batch(step.index), "cross_entropy")


async def test_a_step_is_decided_once(autojump_clock: Any, tmp_path: Path) -> None:
    """What would decide it again, or mix two ways, is an error of the program, and changes nothing."""
    async with opened(tmp_path) as run:
        async for step in run.steps(2):
            if step.index == 0:
                await step.train(batch(0), "cross_entropy", ADAM, after=None)
                for again in (
                    step.train(batch(0), "cross_entropy", ADAM, after=None),
                    step.skip(after=None),
                    step.optim_step(ADAM, after=None),
                    step.forward_backward(batch(0), "cross_entropy"),
                ):
                    with pytest.raises(RuntimeError, match="step 0 is decided"):
                        await again
                continue
            await step.forward_backward(batch(1), "cross_entropy")
            for mixed in (
                step.train(batch(0), "cross_entropy", ADAM, after=None),
                step.skip(after=None),
            ):
                with pytest.raises(RuntimeError, match="step 1 has gradients of its own"):
                    await mixed
            await step.optim_step(ADAM, after=None)
        assert run.decided == 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"after": {1: 2}}, "after"),
        ({"after": "x" * 70_000}, "after"),
        ({"groups": "abc"}, "groups"),
        ({"loss_fn": "nonsense"}, "loss_fn"),
        ({"data": []}, "data"),
    ],
)
async def test_what_cannot_be_is_refused_before_it_is_decided(
    autojump_clock: Any, tmp_path: Path, arguments: dict[str, Any], field: str
) -> None:
    """The step is as it was, and can be decided by something better."""
    good: dict[str, Any] = {"data": batch(0), "loss_fn": "cross_entropy", "optim_params": ADAM, "after": None}
    async with opened(tmp_path) as run:
        async for step in run.steps(1):
            with pytest.raises(InputError) as caught:
                await step.train(**good | arguments)
            assert caught.value.field == field
            assert not step.decided
            await step.train(**good)
        assert run.decided == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base_model": "tinker-actors/other"}, "base_model"),
        ({"rank": 4}, "rank"),
        ({"seed": 6}, "seed"),
        ({"train_mlp": False}, "train_mlp"),
        ({"loss": "ppo"}, "loss"),
        ({"identity": {"data": "v2"}}, "identity.data"),
    ],
)
async def test_a_run_is_not_gone_on_with_as_another(
    autojump_clock: Any, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    """Each difference is named, the run is as it was, and what is accepted by name is taken."""
    begun = {"identity": {"data": "v1"}, "loss": "cross_entropy"}
    loop = Loop(tmp_path, arguments=begun)
    with pytest.raises(Left):
        await loop.live(2, before)
    with pytest.raises(RunMismatch) as caught:
        await Loop(tmp_path, arguments=begun | changes).live()
    assert list(caught.value.fields) == [field]
    assert field in str(caught.value)
    await Loop(tmp_path, total=3, arguments=begun).live()


async def test_another_loss_is_noticed_though_none_was_declared(autojump_clock: Any, tmp_path: Path) -> None:
    """In the first step after a resume, before anything of it is decided."""
    with pytest.raises(Left):
        await Loop(tmp_path).live(2, before)

    inputs = {"target_tokens": [5, 6], "logprobs": [-1.0, -1.0], "advantages": [1.0, 1.0]}
    other = [Datum(ModelInput.from_ints([4, 5]), inputs)]
    for whole in (True, False):
        with pytest.raises(
            RunMismatch, match=r"loss was 'cross_entropy' before the run was resumed, and is 'ppo'"
        ):
            async with opened(tmp_path) as run:
                async for step in run.steps(3):
                    if whole:
                        await step.train(other, "ppo", ADAM, after=None)
                    await step.forward_backward(other, "ppo")
    async with opened(tmp_path, accept=["loss"]) as run:
        async for step in run.steps(4):
            await step.train(other, "ppo", ADAM, after=None)
    async with opened(tmp_path) as run:  # and from then on that is the loss it has
        async for step in run.steps(5):
            await step.train(other, "ppo", ADAM, after=None)
            assert run.decided == 5


async def test_a_declared_loss_is_kept_to(autojump_clock: Any, tmp_path: Path) -> None:
    """Another one is a slip of the program."""
    async with opened(tmp_path, loss="cross_entropy") as run:
        async for step in run.steps(1):
            with pytest.raises(InputError, match="the run was opened with loss='cross_entropy'"):
                await step.train(batch(0), "ppo", ADAM, after=None)
            await step.skip(after=None)


async def test_a_second_one_is_refused_and_the_first_goes_on(autojump_clock: Any, tmp_path: Path) -> None:
    """The error says who has it open."""
    async with opened(tmp_path) as run:
        async for step in run.steps(2):
            with pytest.raises(RunLocked, match="is open in process") as caught:
                async with opened(tmp_path):
                    pass
            assert caught.value.pid is not None
            await step.train(batch(step.index), "cross_entropy", ADAM, after=None)
        assert run.decided == 2


async def test_the_line_on_stderr_says_how_it_came_there(
    autojump_clock: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fresh or restored, from which checkpoint, and how many steps were sent again."""
    loop = Loop(tmp_path / "addition")
    with pytest.raises(Left):
        await loop.live(2, before)
    await loop.live()
    begun, resumed = [line for line in capsys.readouterr().err.splitlines() if "run addition" in line]
    assert begun.startswith("tinker_actors: run addition begins with model ")
    assert "run addition, opened for the 2nd time, goes on at step 2 with model " in resumed
    assert "addition-000000, 2 steps sent again" in resumed


async def test_steps_run_ahead_as_far_as_they_may(autojump_clock: Any, tmp_path: Path) -> None:
    """The next begins while results of earlier ones are out, but no more of them than was said."""
    async with opened(tmp_path) as run:
        out = []
        async for step in run.steps(6, ahead=1):
            assert sum(not one.settled for one in out) <= 1
            out.append(await step.train(batch(step.index), "cross_entropy", ADAM, after=None))
        assert [one.index for one in out] == list(range(6))
        assert json.dumps((await out[-1]).metrics)


async def test_a_step_that_failed_is_told_of_once(autojump_clock: Any, tmp_path: Path) -> None:
    """Whoever has heard of it may enter the loop again, which goes on behind it."""
    strange = [Datum(ModelInput.from_ints([5000]), {"target_tokens": [5], "weights": [1.0]})]
    async with opened(tmp_path) as run:
        with pytest.raises(BadRequestError, match="5000"):
            async for step in run.steps(4, ahead=0):
                data = strange if step.index == 1 else batch(step.index)
                await step.train(data, "cross_entropy", ADAM, after=None)
        assert run.decided == 2
        async for step in run.steps(4):
            await step.train(batch(step.index), "cross_entropy", ADAM, after=None)
        assert run.decided == 4


async def test_it_says_where_a_verb_is(autojump_clock: Any, tmp_path: Path) -> None:
    """A wrong guess is told which client has it; and a run is not made by hand."""
    async with opened(tmp_path / "r") as run:
        assert repr(run) == "<Run r: 0 steps decided>"
        for name, place in (("save_state", "run.training.save_state"), ("close", "run.service.close")):
            with pytest.raises(AttributeError, match=rf"Run has no '{name}': use '{place}'"):
                getattr(run, name)
        async for step in run.steps(1):
            assert repr(step) == "<RunStep 0: not decided>"
            done = await step.train(batch(0), "cross_entropy", ADAM, after=None)
            assert repr(step) == "<RunStep 0: decided>"
            await done.forward
            await done.optim
            assert repr(done) == "<DecidedStep 0: done>"
    with pytest.raises(TypeError, match="Run is not made by hand: async with tinker_actors"):
        Run("runs/first")  # type: ignore[call-arg, arg-type]  # the wrong guess that is answered


@pytest.mark.parametrize(
    ("total", "ahead", "field"), [(-1, 2, "total"), (True, 2, "total"), (3, -1, "ahead")]
)
async def test_a_number_of_steps_that_is_none_is_refused(
    autojump_clock: Any, tmp_path: Path, total: Any, ahead: Any, field: str
) -> None:
    """Before the loop begins."""
    async with opened(tmp_path) as run:
        with pytest.raises(InputError, match=rf"^{field} = "):
            run.steps(total, ahead=ahead)


async def test_a_file_is_no_directory(autojump_clock: Any, tmp_path: Path) -> None:
    """It is left as it is."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is there, and no directory"):
        async with opened(tmp_path / "file", backend="local"):
            pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"run_dir": 3}, "run_dir"),
        ({"run_dir": ""}, "run_dir"),
        ({"base_model": ""}, "base_model"),
        ({"rank": 0}, "rank"),
        ({"loss": "nonsense"}, "loss"),
        ({"identity": 3}, "identity"),
        ({"accept": "loss"}, "accept"),
        ({"checkpoints": 5}, "checkpoints"),
        ({"checkpoints": False}, "checkpoints"),
        ({"retention": 5}, "retention"),
        ({"retention": 0}, "retention"),
        ({"durability": "disk"}, "durability"),
        ({"journal_max_bytes": 0}, "journal_max_bytes"),
        ({"journal_max_bytes": 1e9}, "journal_max_bytes"),
        ({"signals": 1}, "signals"),
    ],
)
async def test_arguments_that_cannot_be_open_nothing(
    autojump_clock: Any, tmp_path: Path, arguments: dict[str, Any], field: str
) -> None:
    """The field is named, and no directory is made."""
    folder = arguments.pop("run_dir", tmp_path / "run")
    with pytest.raises(InputError) as caught:
        async with opened(folder, backend="local", **arguments):
            pass
    assert caught.value.field == field
    assert not (tmp_path / "run").exists()

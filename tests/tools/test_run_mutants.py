from __future__ import annotations

import re
import runpy
import shutil
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "run_mutants.py"
tool = runpy.run_path(str(TOOL))
PATCHES = tool["patches"]()
Unusable, Verdict = tool["Unusable"], tool["Verdict"]
ROOMS = ("kernel", "journal", "actors", "protocol", "runs")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an unchanged copy of the package."""
    folder = tmp_path_factory.mktemp("unchanged")
    tool["copy_package"](folder)
    return folder


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    """Give a folder with a copy of what is patched."""
    for room in ROOMS:
        if (package / "tinker_actors" / room).exists():
            shutil.copytree(package / "tinker_actors" / room, tmp_path / "tinker_actors" / room)
    return tmp_path


def only_with(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Hide all programs that apply patches but one; skip if that is not there."""
    place = shutil.which(program)
    if place is None:
        pytest.skip(f"{program} is not installed")
    monkeypatch.setattr(shutil, "which", lambda name: place if name == program else None)


def sources(folder: Path) -> dict[str, str]:
    """Read all files of a copy."""
    return {
        str(file.relative_to(folder)): file.read_text("utf-8") for file in folder.rglob("*") if file.is_file()
    }


def test_there_are_enough_mutants_of_each_kind() -> None:
    """Of the kernel's, settling, admission, restarts and draining have three each; journal and recovery have ten."""
    kinds = Counter(patch.stem.partition("-")[0] for patch in PATCHES)
    of_runs = kinds.pop("journal", 0) + kinds.pop("recovery", 0)
    assert kinds == {"settle": 3, "admission": 3, "restart": 3, "drain": 3}
    assert of_runs >= 8


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_each_names_a_rule(patch: Path) -> None:
    """The first line of a patch names a rule of rules.toml and says what is broken, and the diff follows at once."""
    chapters = tomllib.loads(tool["RULES"][tool["suite_of"](patch)].read_text("utf-8"))["rules"]
    rule, what = tool["rule_of"](patch)
    assert rule in {name for chapter in chapters.values() for name in chapter}
    assert what.endswith(".")
    rooms = ROOMS[:1] if tool["suite_of"](patch) == "kernel" else ROOMS[1:]
    beginnings = tuple(f"--- a/tinker_actors/{room}/" for room in rooms)
    assert patch.read_text("utf-8").splitlines()[1].startswith(beginnings)


@pytest.mark.parametrize("program", ["patch", "git"])
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_each_applies_to_the_present_package(
    patch: Path, program: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch that has fallen behind the package is found here, long before somebody runs the mutants."""
    only_with(monkeypatch, program)
    changed = package / patch.read_text("utf-8").splitlines()[1].removeprefix("--- a/")
    before = changed.read_bytes()
    tool["apply"](patch, package, dry_run=True)
    assert changed.read_bytes() == before


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_each_changes_one_module_and_leaves_it_valid(patch: Path, copy: Path) -> None:
    """A mutant is one module changed by a few lines, still Python, and nothing is left beside it."""
    before = sources(copy)
    tool["apply"](patch, copy)
    after = sources(copy)
    assert set(after) == set(before)
    (changed,) = [name for name in after if after[name] != before[name]]
    compile(after[changed], changed, "exec")
    assert abs(len(after[changed].splitlines()) - len(before[changed].splitlines())) <= 3


@pytest.mark.parametrize("program", ["patch", "git"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_patch_that_does_not_apply_is_reported(
    program: str, dry_run: bool, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applied to a kernel that has changed, it is refused with what the program said, and changes nothing."""
    only_with(monkeypatch, program)
    (patch,) = tool["patches"](["restart-beyond"])
    module = copy / "tinker_actors" / "kernel" / "restart.py"
    module.write_text(
        module.read_text("utf-8").replace("self.jitter * chance", "chance * self.jitter"), "utf-8"
    )
    text = module.read_text("utf-8")
    with pytest.raises(Unusable, match=r"its patch does not apply: .*restart\.py"):
        tool["apply"](patch, copy, dry_run=dry_run)
    assert module.read_text("utf-8") == text


def test_a_patch_is_not_applied_twice(copy: Path) -> None:
    """The second time it does not apply; it is not taken back either."""
    tool["apply"](PATCHES[0], copy)
    text = sources(copy)
    with pytest.raises(Unusable):
        tool["apply"](PATCHES[0], copy)
    assert {name: text_ for name, text_ in sources(copy).items() if name.endswith(".py")} == text


def test_without_a_program_that_applies_patches_that_is_said(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither patch nor git: no mutant, and no guess."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Unusable, match="neither patch nor git"):
        tool["apply"](PATCHES[0], copy)


def test_a_patch_without_a_rule_is_refused(tmp_path: Path) -> None:
    """A mutant that says not what it breaks would be killed by anything."""
    patch = tmp_path / "settle-something.patch"
    patch.write_text("--- a/x.py\n+++ b/x.py\n", "utf-8")
    with pytest.raises(Unusable, match="Rule A1"):
        tool["rule_of"](patch)


def test_names_choose_by_their_beginning() -> None:
    """A kind's name chooses its three, and no name all of them."""
    assert {patch.stem.partition("-")[0] for patch in tool["patches"](["drain"])} == {"drain"}
    assert tool["patches"](["nothing"]) == []
    assert len(tool["patches"]()) == len(PATCHES)


def test_what_is_imported_is_the_copy(tmp_path: Path) -> None:
    """The preflight passes for a copy, which comes before the package that is installed."""
    tool["prepare"](None, tmp_path)
    assert (tmp_path / "tinker_actors" / "kernel" / "mailbox.py").is_file()


def test_another_package_is_not_taken_for_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the installed package is what would be tested, the preflight says so, and where it lies."""
    monkeypatch.setitem(tool["prepare"].__globals__, "copy_package", lambda _: None)
    with pytest.raises(Unusable, match=r"another package is imported: .*tinker_actors"):
        tool["prepare"](None, tmp_path)


def test_a_copy_that_cannot_be_imported_is_no_mutant(tmp_path: Path) -> None:
    """A patch that breaks the syntax is a mistake, not a mutant that the tests kill."""
    patch = tmp_path / "settle-syntax.patch"
    broken = PATCHES[0].read_text("utf-8").replace("\n+", "\n+(((")
    patch.write_text(broken.replace("\n+(((++ ", "\n+++ "), "utf-8")
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Unusable, match=r"it cannot be imported: SyntaxError"):
        tool["prepare"](patch, tmp_path / "scratch")


@pytest.mark.parametrize(
    ("kind", "fine", "text"),
    [
        ("failed", True, "killed by tests/kernel/test_a.py::test_b"),
        ("passed", False, "SURVIVED: "),
        ("neither", False, "NO VERDICT: "),
    ],
)
def test_only_a_failing_suite_kills_a_mutant(kind: str, fine: bool, text: str) -> None:
    """A mutant that survives, or of which nothing can be said, is not fine."""
    is_fine, said = tool["describe"](PATCHES[0], Verdict(kind, "tests/kernel/test_a.py::test_b"))
    assert is_fine is fine
    assert said.startswith(f"{tool['rule_of'](PATCHES[0])[0]} {text}")


@pytest.mark.parametrize("kind", ["passed", "failed", "neither"])
def test_the_unchanged_package_must_pass(kind: str) -> None:
    """If it does not, that is said to make the run worthless."""
    is_fine, said = tool["describe"](None, Verdict(kind, "why"))
    assert is_fine is (kind == "passed")
    assert said == ("passes" if is_fine else "FAILS, so mutants say nothing: why")


@pytest.mark.parametrize(
    ("program", "kind", "text"),
    [
        ("raise SystemExit(0)", "passed", "pytest ended with 0"),
        (
            "print('FAILED ../../tests/kernel/test_a.py::test_b[x y] - assert 1 - 1'); raise SystemExit(1)",
            "failed",
            r"^tests/kernel/test_a\.py::test_b\[x y\]$",
        ),
        ("print('no such option'); raise SystemExit(4)", "neither", "pytest ended with 4: no such option"),
        ("import time; time.sleep(60)", "failed", r"hanging for 0\.2 s"),
    ],
    ids=["passes", "fails", "cannot run", "hangs"],
)
async def test_how_the_suite_ends_is_the_verdict(
    program: str, kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status tells, not its words: 0 lives, 1 with a failing test kills, and so does a hang, which is ended."""
    monkeypatch.setitem(tool["judge"].__globals__, "command_of", lambda _: ["-c", program])
    verdict = await tool["judge"](tmp_path, "kernel", 0.2 if "sleep" in program else 60)
    assert verdict.kind == kind
    assert re.search(text, verdict.text)


def test_a_patch_is_judged_by_the_tests_of_what_it_breaks() -> None:
    """The journal's and recovery's by theirs, all others by the kernel's."""
    suites = [tool["suite_of"](Path(f"{name}.patch")) for name in ("journal-a", "recovery-b", "restart-c")]
    assert suites == ["runs", "runs", "kernel"]
    assert tool["command_of"]("runs")[-2:] == [f"{ROOT}/tests/journal", f"{ROOT}/tests/runs"]


async def test_a_suite_that_fails_unchanged_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No mutant is judged by tests that fail anyway."""
    names = tool["run"].__globals__
    monkeypatch.setitem(names, "prepare", lambda *_: None)
    program = "print('FAILED tests/kernel/test_a.py::test_b'); raise SystemExit(1)"
    monkeypatch.setitem(names, "command_of", lambda _: ["-c", program])
    assert await tool["run"](PATCHES[:1], 2, 60) == {"(unchanged-kernel)": False}
    assert "FAILS, so mutants say nothing: tests/kernel/test_a.py::test_b" in capsys.readouterr().out


async def test_each_mutant_has_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line per mutant; one whose patch does not apply is not fine, and the others are judged all the same."""
    first, second, *_ = PATCHES

    def prepare(patch: Path | None, folder: Path) -> None:
        if patch == first:
            raise Unusable("its patch does not apply")

    names = tool["run"].__globals__
    monkeypatch.setitem(names, "prepare", prepare)
    monkeypatch.setitem(names, "command_of", lambda _: ["-c", "raise SystemExit(0)"])
    assert await tool["run"]([first, second], 2, 60) == {
        "(unchanged-kernel)": True,
        first.stem: False,
        second.stem: False,
    }
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line.split()[0] for line in lines] == ["(unchanged-kernel)", first.stem, second.stem]
    assert "UNUSABLE: its patch does not apply" in lines[1]
    assert "SURVIVED: " in lines[2]

"""The papers of the house agree: versions, pins, changelog, and nothing that belongs to one machine."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import tinker_actors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]

# Folders in which somebody's own files lie. The leading slash stands apart, or this line would find itself.
PRIVATE = "home|Users|root|opt|mnt|srv|tmp|work|workspace|private"
MACHINE_PATH = re.compile(r"(?<![\w.:/~-])" + "/" + rf"(?:{PRIVATE})/\w")
CODE = re.compile(r"^```bash\n.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".json", ".jsonl", ".yml", ".yaml", ".sh", ""}


def pins() -> dict[str, Requirement]:
    """Read constraints.txt: canonical name to requirement."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in wanted}


def declared() -> list[Requirement]:
    """Read every requirement that pyproject.toml states, for running, testing, checking and building."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for group in [*groups, PYPROJECT["build-system"]["requires"]] for line in group]


def closure(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Walk what is installed for a requirement, and for its requirements, on this Python."""
    for extra in ["", *sorted(requirement.extras)]:
        key = (canonicalize_name(requirement.name), extra)
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        for line in metadata.requires(requirement.name) or []:
            inner = Requirement(line)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                yield from closure(inner, seen)


def tracked_files() -> list[Path]:
    """List the files of the project: by git in a clone, else (an unpacked distribution) all that lie here."""
    if (ROOT / ".git").exists() and (git := shutil.which("git")):
        command = [git, "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    files = [file for file in ROOT.rglob("*") if file.is_file()]
    foreign = re.compile(r"\.(?!ci$)|__pycache__$")  # environments, caches
    return [file for file in files if not any(map(foreign.match, file.relative_to(ROOT).parts))]


def test_version_is_the_same_everywhere() -> None:
    """pyproject.toml, the package, its metadata and the newest entry of the changelog name one version."""
    entry = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert entry is not None
    named = {PROJECT["version"], tinker_actors.__version__, metadata.version("tinker-actors"), entry.group(1)}
    assert named == {PROJECT["version"]}


def test_installed_metadata_is_that_of_pyproject() -> None:
    """Name, Python floor, license, console script and type marker reach the installed package."""
    installed = metadata.metadata("tinker-actors")
    assert installed["Requires-Python"] == PROJECT["requires-python"]
    assert installed["License-Expression"] == "Apache-2.0"
    assert installed["License-File"] == "LICENSE"
    (script,) = metadata.entry_points(group="console_scripts", name="tinker-actors")
    assert script.value == PROJECT["scripts"]["tinker-actors"]
    assert callable(script.load())
    assert (Path(tinker_actors.__file__).parent / "py.typed").is_file()


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    """constraints.txt holds an exact version for each requirement, and pyproject.toml's bounds admit it."""
    pinned = pins()
    for requirement in declared():
        if canonicalize_name(requirement.name) == "tinker-actors":
            continue
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(Version(pin.version)), requirement


def imported(file: Path) -> set[str]:
    """Name the packages that a module imports from outside, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"tinker_actors"}


def test_what_the_package_imports_is_required() -> None:
    """Nothing is there only because something else happens to bring it."""
    files = Path(tinker_actors.__file__).parent.rglob("*.py")
    named = {canonicalize_name(requirement.name) for requirement in declared()}
    assert {canonicalize_name(name) for name in set().union(*map(imported, files))} - named == set()


def test_requirements_of_requirements_are_pinned() -> None:
    """Whatever running and testing pull in on this Python has its pin: the same versions on every machine."""
    seen: set[tuple[str, str]] = set()
    reached = set(closure(Requirement("tinker-actors[test]"), seen)) - {"tinker-actors"}
    assert len(reached) > len(PROJECT["dependencies"])
    assert reached - set(pins()) == set()


def test_pins_are_exact_and_name_no_host() -> None:
    """constraints.txt says which version, never where from: that is the reader's own registry."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert not re.search(r"://|^-|@|--hash", text, re.MULTILINE)
    for pin in pins().values():
        assert pin.url is None
        (only,) = pin.specifier
        assert only.operator == "=="


def test_classifiers_name_the_pythons_make_tests() -> None:
    """The Pythons promised to users are those that the Makefile has a target for."""
    promised = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    tested = {f"3.{minor}" for minor in re.findall(r"^test-py3(\d+):", makefile, re.MULTILINE)}
    floor = PROJECT["requires-python"].removeprefix(">=")
    assert promised == tested | {floor}


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    """Every path in the project is relative, or one that all machines have."""
    assert MACHINE_PATH.search("see " + "/" + "home/someone/notes")
    texts = {file: file.read_text("utf-8") for file in tracked_files() if file.suffix in TEXT}
    assert ROOT / "pyproject.toml" in texts
    lines = [(file.name, line) for file, text in texts.items() for line in text.splitlines()]
    assert [(name, line) for name, line in lines if MACHINE_PATH.search(line)] == []


def test_every_target_of_make_is_told_to_contributors() -> None:
    """What `make help` lists stands in CONTRIBUTING.md, and what stands there is listed."""
    listed = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    told = re.findall(
        r"\bmake ([a-z][a-z0-9-]*)", "\n".join(CODE.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    )
    assert listed == set(told)


@pytest.mark.parametrize("room", ["protocol", "transport"])
def test_the_map_of_a_large_room_names_each_module(room: str) -> None:
    """A newcomer finds the place; a module that comes is put on the map."""
    package = Path(tinker_actors.__file__).parent / room
    modules = {file.stem for file in package.glob("*.py")} - {"__init__"}
    text = (package / "__init__.py").read_text("utf-8")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    assert modules - set(re.findall(r"\w+", rows)) == set()


PAPERS = ["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "docs/design.md"]


@pytest.mark.parametrize("name", PAPERS)
def test_papers_are_there(name: str) -> None:
    """Each paper that a newcomer looks for lies where it is looked for."""
    assert (ROOT / name).read_text("utf-8").strip()

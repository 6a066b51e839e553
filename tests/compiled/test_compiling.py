"""Compiling in place and for packages, choosing at start, and going without."""

from __future__ import annotations

import os
import tarfile
import tomllib
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tests.compiled.conftest import FILES, ROOT, Project, compilers_are_here
from tests.services.requirements import in_ci

EXTENSIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
PACKAGES = sorted({extension["name"].partition(".")[0] for extension in EXTENSIONS})
SUFFIX = EXTENSION_SUFFIXES[0]


def test_compiled_modules_are_imported_in_place_of_their_sources(compiled: Project) -> None:
    assert compiled.look() == ("", ["so", "so"])


def test_an_installation_that_was_never_compiled_says_so(source: Project) -> None:
    assert source.look() == ("not compiled", ["py", "py"])


def test_a_folder_that_is_being_built_or_was_left_behind_counts_as_none(source: Project, tmp_path: Path) -> None:
    project = source.copy(tmp_path / "project")
    (project.folder / "sample" / "_compiled").mkdir()
    assert project.look() == ("not compiled", ["py", "py"])


def test_what_is_up_to_date_is_not_compiled_again(compiled: Project) -> None:
    before = compiled.folder / "sample" / "_compiled" / f"sums{SUFFIX}"
    made = before.stat().st_mtime_ns
    done = compiled.compile()
    assert (done.returncode, done.stdout) == (0, "sample: up to date\n")
    assert before.stat().st_mtime_ns == made


@pytest.mark.parametrize("changed", ["sums.py", "inner/deep.py", "sums.pxd"])
def test_a_source_that_changed_is_noticed_and_all_of_its_package_is_interpreted(
    compiled: Project, tmp_path: Path, changed: str
) -> None:
    project = compiled.copy(tmp_path / "project")
    with open(project.folder / "sample" / changed, "a") as source:
        source.write("# changed\n")
    why, suffixes = project.look()
    assert why == (
        f"sources changed since they were compiled: sample/{changed}; python -m scripts.compiled compiles them again"
    )
    assert suffixes == ["py", "py"]


def test_compiling_again_takes_up_what_changed(compiled: Project, tmp_path: Path) -> None:
    project = compiled.copy(tmp_path / "project")
    path = project.folder / "sample" / "sums.py"
    path.write_text(path.read_text() + "\n\nMORE = 1\n")
    assert project.compile().returncode == 0
    assert project.look() == ("", ["so", "so"])
    assert project.run("-c", "from sample.sums import MORE").returncode == 0


def test_a_module_that_was_compiled_for_another_python_is_not_used(compiled: Project, tmp_path: Path) -> None:
    project = compiled.copy(tmp_path / "project")
    module = project.folder / "sample" / "_compiled" / f"sums{SUFFIX}"
    module.rename(module.with_name("sums.cpython-39-x86_64-linux-gnu.so"))
    assert project.look() == (f"compiled for another Python than {SUFFIX}", ["py", "py"])


def test_the_environment_switches_them_off(compiled: Project) -> None:
    assert compiled.look(SAMPLE_COMPILED="0") == ("switched off by SAMPLE_COMPILED=0", ["py", "py"])
    assert compiled.look(SAMPLE_COMPILED="1") == ("", ["so", "so"])


def test_a_switch_that_is_neither_on_nor_off_is_pointed_out(compiled: Project) -> None:
    done = compiled.run("-c", "import sample; print(sample.why_interpreted)", SAMPLE_COMPILED="no")
    assert done.stdout == "\n"
    assert "SAMPLE_COMPILED is 'no', and ignored: it may be 0 (use the sources) or 1" in done.stderr


def test_without_a_working_compiler_the_sources_are_used_and_the_reason_is_kept(
    compiled: Project, tmp_path: Path
) -> None:
    project = compiled.copy(tmp_path / "project")
    (project.folder / "sample" / "sums.py").touch()
    with open(project.folder / "sample" / "sums.py", "a") as source:
        source.write("# changed\n")
    done = project.compile(CC="/bin/false")
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("warning: not compiled: ")
    assert "a C compiler and Python's headers are needed" in said
    assert project.look() == (said.removeprefix("warning: "), ["py", "py"])
    assert not list(project.folder.glob("sample/_compiled/**/*.so")), "one that was compiled before"


def test_a_wheel_holds_the_compiled_modules_and_they_are_used(source: Project, tmp_path: Path) -> None:
    compilers_are_here()
    project = source.copy(tmp_path / "project")
    wheel, _ = project.package("wheel", tmp_path / "wheel")
    assert "none-any" not in wheel.name, "it is for this Python on this machine"
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    assert Project(tmp_path / "installed").look() == ("", ["so", "so"])


def test_a_source_distribution_installs_without_a_compiler_and_compiles_with_one(
    source: Project, tmp_path: Path
) -> None:
    sdist, _ = source.copy(tmp_path / "project").package("sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = Project(tmp_path / "sample-1")
    assert {name for name in FILES if not (unpacked.folder / name).exists()} == set()
    wheel, said = unpacked.package("wheel", tmp_path / "interpreted", CC="/bin/false")
    assert said.count("warning: not compiled") == 1
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    why, suffixes = Project(tmp_path / "installed").look()
    assert why.startswith("not compiled: ")
    assert suffixes == ["py", "py"]


def test_no_generated_c_lies_beside_the_sources(compiled: Project) -> None:
    assert list((compiled.folder / "sample").rglob("*.c")) == []


def test_a_module_is_compiled_under_the_name_of_the_source_it_replaces() -> None:
    for extension in EXTENSIONS:
        (source,) = extension["sources"]
        package, folder, module = extension["name"].split(".", 2)
        assert folder == "_compiled"
        assert (ROOT / source).is_file()
        place = Path(package, *module.split("."))
        assert source in (f"{place}.py", f"{place}.pyx"), "a .pyx is the C half of a module with two sources"
        assert (ROOT / place).with_suffix(".py").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_this_tree_is_compiled_where_a_compiler_is_at_hand(package: str) -> None:
    names = [f"{package}.{one['name'].split('.', 2)[2]}" for one in EXTENSIONS if one["name"].startswith(f"{package}.")]
    done = Project(ROOT).run(
        "-c",
        f"import importlib, {package}\nprint({package}.why_interpreted)\n"
        f"for name in {names}: print(importlib.import_module(name).__file__)",
    )
    why, *files = done.stdout.splitlines() or [done.stderr]
    if why and not in_ci():
        pytest.skip(f"{package} is interpreted: {why}")
    assert why == ""
    assert [os.path.relpath(file, ROOT) for file in files] == [
        f"{package}/_compiled/{name.partition('.')[2].replace('.', '/')}{SUFFIX}" for name in names
    ]

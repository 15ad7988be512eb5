"""Every Markdown page: its links, commands, flags and examples work; the file map is whole."""

import ast
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssl_runner.command import parse
from ssl_runner.datasets import load_dataset
from ssl_runner.models import build_model
from ssl_runner.models.settings import ModelSettings
from ssl_runner.study import sweep_from_settings
from tests.test_sampler import forks

ROOT = Path(__file__).parent.parent
# The directory may be another user's, as in a container.
_LIST = ["git", "-c", "safe.directory=*", "ls-files"]
TRACKED = subprocess.run(_LIST, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
PAGES = [path for path in TRACKED if path.endswith(".md")]

OURS = tuple(
    f"ssl_runner.{name}" for name in ("tune", "train", "report", "datasets", "predict", "label_next")
)
"""The commands whose flags a page may name by themselves."""

MOST_LINES = 235
"""A newcomer has five minutes."""

every_page = pytest.mark.parametrize("page", PAGES)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)


def prose_of(page: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def spans_of(page: str) -> list[str]:
    """The pieces of code within a page's sentences."""
    return re.findall(r"`([^`]+)`", prose_of(page))


def links_of(page: str) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]+`", "", prose_of(page)))


def anchors_of(page: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_of(page: str) -> Iterator[tuple[str, list[str]]]:
    """Module and arguments of each `python -m module arguments` on a page."""
    code = "\n".join(blocks_of(page, "sh")).replace("\\\n", " ")
    for line in [*code.splitlines(), *spans_of(page)]:
        for module, arguments in re.findall(r"python3? -m ([\w.]+)([^&|>]*)", line):
            yield module, shlex.split(arguments, comments=True)


def home_of(module: str) -> str | None:
    """The module that `python -m module` runs; None: there is none."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None:
        return None
    return module if spec.submodule_search_locations is None else home_of(f"{module}.__main__")


@cache
def flags_of(module: str) -> frozenset[str]:
    """The flags that a command's --help names."""
    home = home_of(module)
    assert home is not None
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr("sys.argv", [module, "--help"])
        with pytest.raises(SystemExit):
            import_module(home).main()
    flags = frozenset(re.findall(r"--[a-z][a-z0-9-]*", printed.getvalue()))
    assert "--help" in flags
    return flags


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len(text_of("README.md").splitlines()) <= MOST_LINES


def test_every_page_is_linked_from_the_readme() -> None:
    assert set(PAGES) - {"README.md"} <= set(links_of("README.md"))


@every_page
def test_its_links_lead_somewhere(page: str) -> None:
    for link in links_of(page):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors_of(str(path.resolve().relative_to(ROOT.resolve()))), link


@every_page
def test_its_commands_are_there_and_take_their_flags(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where the studies are
    for module, arguments in commands_of(page):
        assert home_of(module) is not None, module
        flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        if flags:
            assert set(flags) <= flags_of(module), arguments
        studies = [word for word in arguments if word.endswith(".yaml")]
        runs_trials = module in OURS[:2] and "--help" not in arguments
        if runs_trials and all(Path(study).exists() for study in studies):
            parse(module, "", arguments, single=module.endswith("train"))


@every_page
def test_the_flags_it_names_exist(page: str) -> None:
    known = frozenset[str]().union(*map(flags_of, OURS))
    named = {flag for span in spans_of(page) if span.startswith("--") for flag in span.split()}
    assert {flag for flag in named if flag.startswith("--")} <= known


@every_page
def test_its_python_is_python(page: str) -> None:
    for block in blocks_of(page, "python"):
        ast.parse(block)


def test_the_readmes_study_is_one() -> None:
    (study,) = blocks_of("README.md", "yaml")
    sweep = sweep_from_settings({"name": "my_study"} | yaml.safe_load(study))
    assert f"of {len(sweep.trials())} trials are in results already" in text_of("README.md")


def test_the_examples_of_own_code_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks_of("ssl_runner/README.md", "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block, encoding="utf-8")
    images = np.zeros((6, 3, 5, 4), dtype=np.uint8)
    labels = np.arange(6) % 3
    np.savez(
        tmp_path / "letters.npz",
        **{f"{part}_images": images for part in ("train", "test")},  # type: ignore[arg-type]
        **{f"{part}_labels": labels for part in ("train", "test")},  # type: ignore[arg-type]
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(load_dataset("my_data:letters").train) == 6
    model = build_model(ModelSettings(model="my_model:Linear"), 3, (5, 4), 3)
    assert model(torch.zeros(2, 3, 5, 4)).shape == (2, 3)


@forks
def test_the_example_of_files_decoded_at_use_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (b for b in blocks_of("ssl_runner/README.md", "python") if "files_at_use.py" in b)
    (tmp_path / "images").mkdir()
    for name in ("cat 1", "cat 2", "what 1", "what 2", "what 3"):
        Image.new("RGB", (4, 3)).save(tmp_path / "images" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "files_at_use.py", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    shapes = sorted(re.findall(r"Size\((\[\d, .*?, 4\])\)", " ".join(lines)))
    assert shapes == ["[2, 3, 3, 4]", "[3, 3, 3, 4]"]


def file_map() -> list[tuple[list[str], str]]:
    """The README's file map: the files of each line, and what it says of them.

    Files after the first are in the first one's folder. `*` stands for any name, and a name that
    ends in `/` for all that is in that folder.
    """
    rows = text_of("README.md").partition("| file | what lives there |\n|---|---|\n")[2].splitlines()
    lines = []
    for row in rows:
        if not row.startswith("|"):
            break
        files, meaning = row.strip("| ").split(" | ")
        first, *others = re.findall(r"`([^`]+)`", files)
        folder = PurePath(first).parent.as_posix()
        lines.append(([first, *(f"{folder}/{name}".removeprefix("./") for name in others)], meaning))
    return lines


def is_meant(named: str, path: str) -> bool:
    return path.startswith(named) if named.endswith("/") else PurePath(path).match(named)


def test_every_file_of_the_map_exists() -> None:
    for files, meaning in file_map():
        for named in files:
            assert any(is_meant(named, path) for path in TRACKED), named
        assert meaning.count(";") + 1 == len(files), f"{files}: what lives there, in the same order"


def test_every_file_is_in_the_map() -> None:
    named = [file for files, _ in file_map() for file in files]
    # Pages have a table of their own; the rest only makes packages of folders.
    left_out = ("*.md", "__init__.py", "py.typed", ".gitignore")
    missing = [
        path
        for path in TRACKED
        if not any(is_meant(file, path) for file in named)
        and not any(PurePath(path).match(pattern) for pattern in left_out)
    ]
    assert missing == []

"""Imports go downward only, as DESIGN draws the rooms; Ray is imported in `tune` alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ssl_runner"

# A room may import from those above it in this list. A command (`__main__`) stands above what it runs,
# and the settings of a room are below all rooms: `config` is made of them.
ROOMS = (
    *("ssl_runner", "lazy", "errors", "labels", "metrics", "checkpoint_name", "time_limit"),
    *("settings", "search", "imports", "keyed_random", "selection", "cache"),
    *("object_store", "storage", "testing"),
    *("config", "identity", "shard", "study", "command"),
    *("split", "datasets", "pools", "sampler", "loader", "image_files", "parquet_shards"),
    *("augment", "models", "methods", "train", "suited", "checkpoint", "results"),
    *(
        "saved_model",
        "versions",
        "asking",
        "rounds",
        "trial",
        "predict",
        "export",
        "report",
        "label_next",
        "tune",
    ),
)


def room_of(module: str) -> str:
    """`ssl_runner.train.loop` is in the room `train`, `ssl_runner.train.settings` in `settings`."""
    parts = module.split(".")
    if parts[-1] == "settings":
        return "settings"
    return parts[1] if len(parts) > 1 else parts[0]


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; submodules named by `from package import`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                place = ROOT.parent.joinpath(*node.module.split("."), alias.name)
                is_module = place.is_dir() or place.with_suffix(".py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


FILES = {path.relative_to(ROOT.parent).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


# The package itself names what lies below it, and loads it when it is asked for.
ABOVE = ("__main__.py", "ssl_runner/__init__.py")


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(ABOVE)])
def test_imports_go_downward(name: str) -> None:
    own = room_of(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for module in imports_of(FILES[name]):
        if module.partition(".")[0] == "ssl_runner":
            room = room_of(module)
            assert ROOMS.index(room) <= ROOMS.index(own), f"{own} imports {module}"


@pytest.mark.parametrize("name", FILES)
def test_ray_is_imported_in_one_room(name: str) -> None:
    uses_ray = "ray" in {module.partition(".")[0] for module in imports_of(FILES[name])}
    assert not uses_ray or name.startswith("ssl_runner/tune/")


def test_a_wrong_arrow_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from ssl_runner.tune import sweep\n    import ray.train\n")
    assert list(imports_of(path)) == ["ssl_runner.tune.sweep", "ray.train"]
    assert ROOMS.index(room_of("ssl_runner.tune.sweep")) > ROOMS.index("config")

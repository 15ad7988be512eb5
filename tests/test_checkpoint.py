"""The state of a trial on disk: complete, checked, and never executed."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_runner.checkpoint import KEPT, Checkpoints


def state(epochs: int, steps: int | None = None, **more: Any) -> dict[str, Any]:
    """A state as `fit` makes it, after so many epochs."""
    history = [{"epoch": epoch + 1, "train_loss": 1 / (epoch + 3)} for epoch in range(epochs)]
    steps = 100 * epochs if steps is None else steps
    return {"progress": {"history": history, "steps": steps}} | more


def place(folder: Path, name: str, content: bytes) -> Path:
    """A file with a name that vouches for its content."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    path.write_bytes(content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_same(one: Any, other: Any) -> None:
    """Equal to the bit, and of the same kinds."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (one, other)))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for item, twin in zip(one, other, strict=True):
            assert_same(item, twin)
    else:
        assert repr(one) == repr(other)


def test_a_state_makes_the_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    saved = state(
        3,
        weights=model.state_dict(),
        optimizer=optimizer.state_dict(),
        random=torch.get_rng_state(),
        half=torch.randn(7).bfloat16(),
        numbers=[0.1, float("inf"), 2**62, True, None, "text", (1, 2)],
        nothing={},
    )
    Checkpoints(str(tmp_path / "trial")).save(saved)
    loaded = Checkpoints(str(tmp_path / "trial")).load()
    assert loaded is not None
    loaded["weights"], saved["weights"] = dict(loaded["weights"]), dict(saved["weights"])
    assert_same(loaded, saved)


def test_no_folder_no_state(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "trial"))
    assert checkpoints.load() is None
    checkpoints.clear()
    assert not (tmp_path / "trial").exists()


def test_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    # Also in mid-epoch, and past the point where 10 sorts before 9 as a text
    for epochs, steps in ((0, 50), (1, 100), (1, 150), (9, 900), (10, 1000), (99, 9900), (100, 10000)):
        checkpoints.save(state(epochs, steps))
        loaded = checkpoints.load()
        assert loaded is not None
        assert loaded["progress"]["steps"] == steps
    assert [name.split("-")[0] for name in names(tmp_path)] == ["000099", "000100"]
    assert KEPT == 2


def flip(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short by a byte": lambda content: content[:-1],
    "cut in half": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\0",
    "first bit flipped": lambda content: flip(content, 0),
    "middle bit flipped": lambda content: flip(content, len(content) // 2),
    "last bit flipped": lambda content: flip(content, -1),
    "zeros, as after a power cut": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_state_is_set_aside_for_the_one_before(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(state(1, weights=torch.arange(1000.0)))
    checkpoints.save(state(2, weights=torch.arange(1000.0)))
    older, newer = sorted(tmp_path.iterdir())
    damaged = damage(newer.read_bytes())
    newer.write_bytes(damaged)

    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["progress"]["steps"] == 100
    assert names(tmp_path) == [older.name, f"{newer.name}.unreadable"]
    assert (tmp_path / f"{newer.name}.unreadable").read_bytes() == damaged

    checkpoints.save(state(2))  # training goes on from there
    checkpoints.save(state(3))
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["progress"]["steps"] == 300
    assert len([name for name in names(tmp_path) if name.endswith(".pt")]) == KEPT


def test_when_none_can_be_read_there_is_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    for epochs in (1, 2):
        checkpoints.save(state(epochs))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert checkpoints.load() is None
    assert all(name.endswith(".unreadable") for name in names(tmp_path))
    assert checkpoints.load() is None


@pytest.mark.parametrize("name", ["zzz.pt", "best.pt", "999999-000000001-0123456789abcdef.pt"])
def test_a_foreign_file_is_set_aside(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(state(1))
    torch.save(state(7), tmp_path / name)
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["progress"]["steps"] == 100
    assert f"{name}.unreadable" in names(tmp_path)


class Malicious:
    """Unpickled without care, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.mark,)


def test_a_state_is_never_executed(tmp_path: Path) -> None:
    folder, mark = tmp_path / "trial", tmp_path / "mark"
    checkpoints = Checkpoints(str(folder))
    checkpoints.save(state(1))
    torch.save(state(2, weights=Malicious(mark)), tmp_path / "made.pt")
    for number, content in enumerate(
        ((tmp_path / "made.pt").read_bytes(), pickle.dumps(Malicious(mark)))
    ):
        place(folder, f"00000{2 + number}-000000200", content)
    loaded = checkpoints.load()
    assert not mark.exists()
    assert loaded is not None
    assert loaded["progress"]["steps"] == 100
    assert len(list(folder.glob("*.unreadable"))) == 2

    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists()  # it would have been


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", b"\x80\x02.", b"0", b"}(.", b"not a pickle", b"PK\x03\x04", pickle.dumps([1, 2])],
)
def test_bytes_that_are_no_state(tmp_path: Path, content: bytes) -> None:
    place(tmp_path, "000002-000000200", content)
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.load() is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".unreadable"]


def test_clear_removes_all_of_it_and_nothing_else(tmp_path: Path) -> None:
    mine, other = Checkpoints(str(tmp_path / "a")), Checkpoints(str(tmp_path / "a--b"))
    for checkpoints in (mine, other):
        checkpoints.save(state(1))
    (tmp_path / "a" / "zzz.pt.unreadable").write_text("")
    mine.clear()
    assert names(tmp_path) == ["a--b"]
    assert mine.load() is None
    assert other.load() is not None
    mine.save(state(1))  # and it can begin again
    assert mine.load() is not None


def test_a_state_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "trial").write_text("a file")
    with pytest.raises(OSError, match="trial"):
        Checkpoints(str(tmp_path / "trial")).save(state(1))
    assert names(tmp_path) == ["trial"]

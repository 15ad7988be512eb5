"""Decoded once: the cache of images, complete or not there, shared by all who map it."""

import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_runner.datasets import DataError, ImageDataset, digest_of
from ssl_runner.datasets.__main__ import main
from ssl_runner.datasets.decoded.decode import Decoded, decode
from ssl_runner.datasets.decoded.load_files import load_files
from ssl_runner.datasets.decoded.mapped import map_of, was_read
from ssl_runner.datasets.decoded.pool import shown_progress
from ssl_runner.datasets.decoded.store import META, clear, handle_of, map_images
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import InputError
from ssl_runner.testing.processes import Runs
from tests.conftest import Answer
from tests.encoded import Folder, encoded_as, fill, listing_of, noise, parts_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has an empty cache."""
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def load(encoded: Folder, said: list[str] | None = None, **settings: Any) -> ImageDataset:
    said = [] if said is None else said
    parts = parts_of(encoded)
    return load_files(listing_of(encoded), FileSettings(**settings), parts, said.append)


def entries_of(cache: Path) -> set[str]:
    return {path.parent.name for path in cache.glob(f"*/{META}")}


def leftovers_of(cache: Path) -> list[str]:
    """What is neither an entry, nor the lock, nor in one of the two folders beside the entries."""
    known = {".lock", "signatures", "bad", *entries_of(cache)}
    return [path.name for path in cache.iterdir() if path.name not in known]


@dataclass(frozen=True)
class Unread(Folder):
    """Files that must not be read."""

    def read(self, chunk: range) -> Iterator[bytes]:
        raise AssertionError("an image was read")


# --- What comes out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("at_once", [4, 100])  # in processes of their own, or in this one
def test_the_parts_have_their_images_in_order(tmp_path: Path, channels: int, at_once: int) -> None:
    encoded = replace(fill(tmp_path / "files", 17, channels=channels), at_once=at_once)
    parts = parts_of(encoded, validation=True)
    dataset = load_files(listing_of(encoded), FileSettings(), parts, lambda line: None)
    assert dataset.validation is not None
    assert parts.validation is not None
    for part, places in (
        (dataset.train, parts.train),
        (dataset.validation, parts.validation),
        (dataset.test, parts.test),
    ):
        assert part.class_names == ("even", "odd")
        np.testing.assert_array_equal(part.labels, places % 2)
        for image, place in zip(part.images, places, strict=True):
            data = encoded.files[place].read_bytes()
            alone = decode(data, None, "crop", None, 100)
            assert isinstance(alone, Decoded)
            np.testing.assert_array_equal(image, alone.pixels_CHW)
    assert dataset.digest == digest_of(dataset.train, dataset.test, dataset.validation)
    assert (dataset.name, dataset.left_out, dataset.left_out_why) == ("mine", 0, "")


def test_images_in_no_part_are_not_looked_at(tmp_path: Path, cache: Path) -> None:
    encoded = fill(tmp_path / "files", 9)
    encoded.files[4].write_bytes(b"no image")
    parts = parts_of(encoded)
    kept = parts.train[parts.train != 4]
    parts = replace(parts, train=kept, left_out={"listed twice": 1})
    dataset = load_files(listing_of(encoded), FileSettings(), parts, lambda line: None)
    assert (len(dataset.train), len(dataset.test)) == (5, 3)
    assert (dataset.left_out, dataset.left_out_why) == (1, "1 listed twice")


def with_sizes(folder: Path, sizes: list[tuple[int, int]]) -> Folder:
    folder.mkdir()
    for number, size in enumerate(sizes):
        data = encoded_as(Image.fromarray(noise(*size, number)), "PNG")
        (folder / f"{number:03d}.png").write_bytes(data)
    return Folder(folder, at_once=1000)


SMALL, LARGE, WIDE = (4, 4), (5, 4), (4, 5)


@pytest.mark.parametrize(
    ("sizes", "commonest"),
    [
        ([SMALL] * 2 + [LARGE] * 3, LARGE),
        ([SMALL] * 3 + [LARGE] * 3, LARGE),  # of equally common ones the larger
        ([LARGE] * 3 + [WIDE] * 3, LARGE),  # and of equally large ones the higher
        ([SMALL] * 80 + [LARGE] * 81, LARGE),  # the first ones mislead
        ([SMALL] * 81 + [LARGE] * 80, SMALL),
    ],
)
def test_the_size_is_the_commonest(
    tmp_path: Path, sizes: list[tuple[int, int]], commonest: tuple[int, int]
) -> None:
    said: list[str] = []
    dataset = load(with_sizes(tmp_path / "files", sizes), said)
    assert dataset.train.images.shape[2:] == commonest
    others = len(sizes) - sizes.count(commonest)
    height, width = commonest
    assert f"mine: {others} images of other sizes brought to {height}×{width} (crop)" in said


@pytest.mark.parametrize("where", [0, 79])  # among the first ones, or where it is not expected
def test_one_image_in_colour_makes_all_rgb(tmp_path: Path, where: int) -> None:
    encoded = fill(tmp_path / "files", 80, channels=1)
    colour = Image.fromarray(noise(5, 4))
    encoded.files[where].write_bytes(encoded_as(colour, "PNG"))
    said: list[str] = []
    dataset = load(encoded, said)
    assert dataset.train.images.shape[1] == 3
    assert "mine: 79 of 80 images are gray: made RGB" in said
    gray = load(encoded, said, channels=1)
    assert gray.train.images.shape[1] == 1
    assert "mine: converted: 1 coloured images" in said


def test_what_was_converted_is_said(tmp_path: Path) -> None:
    encoded = fill(tmp_path / "files", 12)
    exif = Image.Exif()
    exif[0x0112] = 3
    image = Image.fromarray(noise(5, 4))
    for number, data in enumerate(
        [
            encoded_as(image.quantize(4), "PNG"),
            encoded_as(image.quantize(3), "PNG"),
            encoded_as(image.convert("RGBA"), "PNG"),
            encoded_as(image, "PNG", exif=exif),
        ]
    ):
        encoded.files[number].write_bytes(data)
    said: list[str] = []
    load(encoded, said)
    assert said[0] == "mine: converted: 1 alpha, 2 palette images"
    assert said[1] == "mine: 1 images turned as their EXIF data say"


# --- Bad images


def test_bad_images_are_refused_in_a_line_and_listed(tmp_path: Path, cache: Path) -> None:
    encoded = fill(tmp_path / "files", 30)
    for number in range(5, 10):
        encoded.files[number].write_bytes(b"no image")
    whole = encoded.files[20].read_bytes()
    encoded.files[20].write_bytes(whole[: len(whole) - 30])
    with pytest.raises(DataError) as caught:
        load(encoded, max_bad_images=5)
    (path,) = (cache / "bad").iterdir()
    why = "not an image that Pillow knows"
    assert str(caught.value) == (
        "mine: images that can't be decoded must be at most max_bad_images = 5, got 6: "
        f"005.png ({why}), 006.png ({why}), 007.png ({why}), … (all of them: {path}). "
        "Repair or remove them, or leave them out: --max-bad-images 6."
    )
    listed = path.read_text().splitlines()
    assert len(listed) == 6
    assert listed[-1].startswith("020.png (")
    assert "truncated" in listed[-1]
    assert entries_of(cache) == set()
    assert leftovers_of(cache) == []


@pytest.mark.parametrize("at_once", [4, 100])
def test_bad_images_are_left_out_up_to_the_limit(tmp_path: Path, cache: Path, at_once: int) -> None:
    encoded = replace(fill(tmp_path / "files", 20), at_once=at_once)
    good = load(encoded)
    bad = [0, 4, 5, 18]  # 0 and 18 are test images
    for number in bad:
        encoded.files[number].write_bytes(b"no image")
    said: list[str] = []
    dataset = load(encoded, said, max_bad_images=4)
    parts = parts_of(encoded)
    for part, whole, places in (
        (dataset.train, good.train, parts.train),
        (dataset.test, good.test, parts.test),
    ):
        kept = ~np.isin(places, bad)
        np.testing.assert_array_equal(part.images, whole.images[kept])
        np.testing.assert_array_equal(part.labels, whole.labels[kept])
    assert (dataset.left_out, dataset.left_out_why) == (4, "4 can't be decoded")
    assert any(line.startswith("mine: 4 images that can't be decoded are left out: ") for line in said)
    # From the cache they are known too.
    unread = Unread(encoded.path, at_once)
    assert load(unread, max_bad_images=4).digest == dataset.digest
    with pytest.raises(DataError, match="at most max_bad_images = 3, got 4: 000.png"):
        load(unread, max_bad_images=3)


def test_where_no_image_is_good_there_is_no_data_set(tmp_path: Path, cache: Path) -> None:
    encoded = fill(tmp_path / "files", 6)
    for path in encoded.files:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="a training and a test image that can be decoded, got 0 and 0"):
        load(encoded, max_bad_images=100)
    assert leftovers_of(cache) == []


# --- Equal images


def test_images_of_two_parts_are_counted_at_each_start(tmp_path: Path) -> None:
    encoded = fill(tmp_path / "files", 12)
    encoded.files[6].write_bytes(encoded.files[2].read_bytes())  # test and training, both even
    for files in (encoded, Unread(encoded.path)):
        said: list[str] = []
        load(files, said)
        assert any(
            line.startswith("mine: 1 of the 4 test images are training images too") for line in said
        )


def test_equal_images_with_different_labels_are_refused(tmp_path: Path, cache: Path) -> None:
    encoded = fill(tmp_path / "files", 12)
    encoded.files[7].write_bytes(encoded.files[2].read_bytes())
    with pytest.raises(DataError, match=r"002\.png.*007\.png"):
        load(encoded)
    assert entries_of(cache) == set()
    assert leftovers_of(cache) == []


# --- Found again


def test_the_second_start_reads_no_image(tmp_path: Path, cache: Path) -> None:
    encoded = fill(tmp_path / "files")
    first = load(encoded)
    second = load(Unread(encoded.path))
    assert second.digest == first.digest == digest_of(second.train, second.test)
    assert len(entries_of(cache)) == 1


def test_a_changed_file_is_another_data_set(tmp_path: Path, cache: Path) -> None:
    encoded = fill(tmp_path / "files")
    first = load(encoded)
    before = first.train.images.copy()
    encoded.files[1].write_bytes(encoded_as(Image.fromarray(noise(5, 4, 99)), "PNG"))
    second = load(encoded)
    assert second.digest != first.digest
    np.testing.assert_array_equal(first.train.images, before)
    np.testing.assert_array_equal(second.train.images[0], noise(5, 4, 99).transpose(2, 0, 1))
    assert len(entries_of(cache)) == 2


def test_equal_content_elsewhere_is_the_same_entry(tmp_path: Path, cache: Path) -> None:
    encoded = fill(tmp_path / "files")
    first = load(encoded)
    (entry,) = entries_of(cache)
    changed = (cache / entry / META).stat().st_ino
    shutil.copytree(encoded.path, tmp_path / "moved", copy_function=shutil.copyfile)
    moved = Folder(tmp_path / "moved")
    assert moved.signature() != encoded.signature()
    second = load(moved)
    assert second.digest == first.digest
    assert entries_of(cache) == {entry}
    assert (cache / entry / META).stat().st_ino == changed  # not made again
    load(Unread(moved.path))  # and known from now on


@pytest.mark.parametrize(
    "settings", [{"image_size": (3,)}, {"fit": "pad"}, {"channels": 1}, {"max_pixels": 1000}]
)
def test_other_settings_are_another_entry(
    tmp_path: Path, cache: Path, settings: dict[str, Any]
) -> None:
    encoded = fill(tmp_path / "files")
    load(encoded)
    load(encoded, **settings)
    assert len(entries_of(cache)) == 2


@pytest.mark.parametrize("what", ["images", "labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, cache: Path, what: str, damage: str) -> None:
    encoded = fill(tmp_path / "files")
    digest = load(encoded).digest
    (entry,) = entries_of(cache)
    path = cache / entry / what
    content = path.read_bytes()
    path.unlink()  # not cut in place: the data set above may still be mapped
    if damage != "gone":
        path.write_bytes(content[:-1] if damage == "cut" else b"")
    said: list[str] = []
    again = load(encoded, said)
    assert said[0].startswith("mine: decoded images in the cache are damaged (")
    assert again.digest == digest == digest_of(again.train, again.test)
    assert entries_of(cache) == {entry}
    assert leftovers_of(cache) == []
    assert path.read_bytes() == content


# --- Shared


def test_all_map_one_file_and_none_can_write(tmp_path: Path, cache: Path) -> None:
    dataset = load(fill(tmp_path / "files"))
    handle = handle_of(dataset)
    assert handle is not None
    assert len(pickle.dumps(handle)) < 1000
    other = pickle.loads(pickle.dumps(handle)).open()
    assert other.digest == dataset.digest
    with pytest.raises(ValueError, match="read-only"):
        other.train.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        other.train.labels[0] = 0
    mapped = map_of(other.test.images)
    assert mapped is not None
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        other.train.images.flags.writeable = True
    # One file: what is written to it is seen in both.
    with mapped.path.open("r+b") as file:
        file.write(b"changed!")
    for seen in (dataset, other):
        assert seen.train.images.reshape(-1)[:8].tobytes() == b"changed!"


def test_another_process_maps_the_same(tmp_path: Path, runs: Runs) -> None:
    dataset = load(fill(tmp_path / "files"))
    path = tmp_path / "handle"
    path.write_bytes(pickle.dumps(handle_of(dataset)))
    code = f"""if True:
        import pickle
        from ssl_runner.datasets import digest_of
        dataset = pickle.load(open({str(path)!r}, "rb")).open()
        assert dataset.digest == digest_of(dataset.train, dataset.test)
        print(dataset.name, dataset.digest)
    """
    assert runs.start(code=code).succeed() == f"mine {dataset.digest}\n"


def test_arrays_in_memory_have_no_handle(fashion_mnist: ImageDataset) -> None:
    assert handle_of(fashion_mnist) is None


def test_a_handle_whose_entry_is_gone_says_so(tmp_path: Path, cache: Path) -> None:
    handle = handle_of(load(fill(tmp_path / "files")))
    assert handle is not None
    shutil.rmtree(handle.folder)
    with pytest.raises(DataError, match="must stay while they are used, but they are gone"):
        handle.open()


# --- Removed


def test_those_not_used_for_longest_go_first(tmp_path: Path, cache: Path) -> None:
    """Each entry takes 720 bytes; there is room for two."""
    folders = [fill(tmp_path / name, 12, (4, 5)) for name in "abcd"]
    for number, folder in enumerate(folders):
        folder.files[0].write_bytes(encoded_as(Image.fromarray(noise(4, 5, 50 + number)), "PNG"))
    room = 1500e-9
    digests = [load(folder, cache_limit=room).digest for folder in folders[:2]]
    assert len(entries_of(cache)) == 2
    used = sorted(cache.glob(f"*/{META}"), key=lambda path: path.stat().st_mtime_ns)
    for seconds, meta in enumerate(used):
        os.utime(meta, (seconds, seconds))
    assert load(Unread(folders[0].path)).digest == digests[0]  # used again
    load(folders[2], cache_limit=room)
    assert len(entries_of(cache)) == 2
    load(Unread(folders[0].path))
    with pytest.raises(AssertionError, match="an image was read"):
        load(Unread(folders[1].path))
    assert leftovers_of(cache) == []


def test_what_is_in_use_is_not_removed(
    tmp_path: Path, cache: Path, call: Callable[..., Answer]
) -> None:
    mine = load(fill(tmp_path / "a"))
    load(fill(tmp_path / "b", 7), cache_limit=0)
    assert len(entries_of(cache)) == 2
    done = call(main, "--clear")
    assert done.returncode == 0
    assert done.stdout.endswith(
        f"bytes of decoded images from {cache}; 1 data sets stay, which are in use\n"
    )
    assert len(entries_of(cache)) == 1
    handle = handle_of(mine)
    assert handle is not None
    assert handle.open().digest == mine.digest
    load(Unread(tmp_path / "a"))  # it is still found
    del mine
    done = call(main, "--clear")
    size = int(done.stdout.split()[1].replace(",", ""))
    assert 720 < size < 5000
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [".lock"]


def test_clearing_no_cache_makes_none(cache: Path) -> None:
    assert clear() == (0, 0)
    assert not cache.exists()


# --- Killed


LOAD = """if True:
    import pathlib, sys
    from ssl_runner.datasets.decoded.load_files import load_files
    from ssl_runner.datasets.settings import FileSettings
    from tests.encoded import Folder, listing_of, parts_of
    encoded = Folder(pathlib.Path(sys.argv[1]), 4, pause=float(sys.argv[2]), dies_at=sys.argv[3])
    print("ready", flush=True)
    while len(sys.argv) > 4 and not pathlib.Path(sys.argv[4]).exists():
        pass
    print(load_files(listing_of(encoded), FileSettings(), parts_of(encoded), print).digest)
"""


@pytest.mark.parametrize("name", ["", "load_files"])  # all its processes, or only the first one
def test_a_run_killed_in_the_middle_leaves_nothing_that_counts(
    tmp_path: Path, cache: Path, runs: Runs, name: str
) -> None:
    encoded = fill(tmp_path / "files", 40)
    run = runs.start(str(encoded.path), "0.05", "", code=LOAD)

    def has_pixels() -> bool:
        return any(path.stat().st_blocks for path in cache.glob("tmp-*/entry/images"))

    run.wait_for(has_pixels)
    assert runs.kill(name)
    run.end()
    assert runs.are_gone()  # the processes that decoded end with the one that started them
    assert entries_of(cache) == set()
    assert leftovers_of(cache) != []
    dataset = load(encoded)
    assert dataset.digest == digest_of(dataset.train, dataset.test)
    assert len(entries_of(cache)) == 1
    assert leftovers_of(cache) == []


def test_a_process_that_decodes_and_dies_is_an_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On one core this process would be the one that decodes.
    monkeypatch.setattr("ssl_runner.datasets.decoded.pool.usable_cpus", lambda: 2)
    encoded = replace(fill(tmp_path / "files", 40), at_once=4, dies_at="021.png")
    with pytest.raises(DataError, match="a process that decodes images must not die") as caught:
        load(encoded)
    assert "\n" not in str(caught.value)
    assert entries_of(cache) == set()
    assert leftovers_of(cache) == []
    load(Folder(encoded.path))


def test_two_processes_at_once_make_one_entry(tmp_path: Path, cache: Path, runs: Runs) -> None:
    encoded, go = fill(tmp_path / "files", 40), tmp_path / "go"
    both = [runs.start(str(encoded.path), "0.01", "", str(go), code=LOAD) for _ in range(2)]
    for run in both:
        run.wait_for(lambda: all(run.stdout.startswith("ready\n") for run in both))
    go.touch()
    printed = [run.succeed() for run in both]
    assert len({text.splitlines()[-1] for text in printed}) == 1
    assert len(entries_of(cache)) == 1
    assert leftovers_of(cache) == []
    assert load(Unread(encoded.path)).digest == printed[0].splitlines()[-1]


def test_a_script_is_not_run_again_by_the_processes_that_decode(tmp_path: Path, runs: Runs) -> None:
    """Python's new processes would do that, and end in an error unless it has a guard."""
    encoded = fill(tmp_path / "files", 12)
    script = tmp_path / "script.py"
    script.write_text(LOAD)
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    printed = runs.start(str(encoded.path), "0", "", code=code).succeed()
    assert printed.count("ready") == 1


# --- No room


def test_more_than_the_disk_holds_is_refused_at_once(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(
        InputError, match=r"need [\d.]+ GB, [\d.]+ GB are free.*Free some space"
    ) as caught:
        load(fill(tmp_path / "files"), image_size=(2**20,))
    assert "\n" not in str(caught.value)
    assert leftovers_of(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_disk_that_fills_is_one_line(tmp_path: Path, cache: Path, runs: Runs) -> None:
    """In place of a full disk: a limit on the size of a file, which is hit in the same calls."""
    encoded = fill(tmp_path / "files", 12, (40, 40))
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n" + LOAD
    run = runs.start(str(encoded.path), "0", "", code=limited)
    run.end()
    assert "CacheError" in run.stderr
    assert "the cache must be a writable folder (File too large). Free some space" in run.stderr
    assert entries_of(cache) == set()
    assert leftovers_of(cache) == []


# --- Shown, and resident


def test_on_a_terminal_a_bar_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown_progress("mine: decoding", 80) as advance:
        advance(20)
    assert "mine: decoding" in terminal.getvalue()
    assert "20/80" in terminal.getvalue()


def resident(path: Path) -> int:
    """Bytes of a mapped file that count as resident in this process."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what is resident")
@pytest.mark.parametrize("scattered", [True, False])
def test_mapped_images_do_not_stay_resident(tmp_path: Path, scattered: bool) -> None:
    path, shape = tmp_path / "images", (100, 3, 800, 800)  # 100 of 1.92 MB
    with path.open("wb") as file:
        file.truncate(int(np.prod(shape)))
        file.write(b"not only zeros")
    with path.open("rb") as file:
        images = map_images(file.fileno(), path, shape)
    order = np.random.default_rng(0).permutation(len(images)) if scattered else np.arange(len(images))
    total = most = 0
    for place in order:
        total += int(images[place : place + 1].sum(dtype=np.int64))
        was_read(images, 1, scattered=scattered)
        most = max(most, resident(path))
    assert 0 < most < images.nbytes * 0.75
    assert total == int(images.sum(dtype=np.int64))
    was_read(np.zeros((3, 2)), 3, scattered=True)  # an array in memory: nothing to do

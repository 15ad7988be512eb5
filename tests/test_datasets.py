"""Where the data come from, and that no wrong byte of them gets through."""

import dataclasses
import gzip
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssl_runner import cache
from ssl_runner.datasets import (
    DataError,
    ImageArrays,
    ImageDataset,
    digest_of,
    fashion_mnist,
    fetch,
    load_dataset,
)
from ssl_runner.datasets.fashion_mnist import FILES, RAW, Files, find_files
from ssl_runner.labels import UNLABELED
from ssl_runner.testing.processes import Runs, wait_until

DIGEST = "a5f6e6177c3dc5f2"  # of Fashion-MNIST: equal on every machine
SMALL = "t10k-labels-idx1-ubyte"  # 10,008 bytes: the one that tests damage
NOWHERE = "http://127.0.0.1:9/"  # nothing listens there


@pytest.fixture(scope="session")
def real_files() -> Files:
    """The four real files, unpacked, through the program itself."""
    return find_files(None, print)


@pytest.fixture(scope="session")
def packed_files(real_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The same as .gz; packed in a hurry, so that the .gz are not the ones torchvision knows."""
    folder = tmp_path_factory.mktemp("packed")
    for name, path in real_files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes(), compresslevel=1))
    return {name: folder / f"{name}.gz" for name in FILES}


@pytest.fixture(autouse=True)
def cache_root(real_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has an empty cache and no other place with data; downloads fail at once."""
    from torchvision.datasets import FashionMNIST

    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSL_RUNNER_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fetch, "DEBIAN_FOLDER", tmp_path / "no-debian-package")
    monkeypatch.setattr(FashionMNIST, "mirrors", [NOWHERE])
    return tmp_path / "cache"


def folder_with(files: Files, folder: Path) -> Path:
    """A folder that holds these files, as links."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files.values():
        (folder / path.name).symlink_to(path)
    return folder


def replace(folder: Path, name: str, content: bytes) -> Path:
    """Put other content in the place of a file (which may be a link to the real one)."""
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    return folder / name


def left_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


WHOLE_CACHE = {"fashion_mnist/.lock", *(str(Path("fashion_mnist") / RAW / name) for name in FILES)}


# --- What a data set is


def tiny_arrays(**changes: Any) -> ImageArrays:
    arrays = ImageArrays(
        images=np.arange(24, dtype=np.uint8).reshape(3, 2, 2, 2),
        labels=np.array([0, 1, 1]),
        class_names=("cat", "dog"),
    )
    return dataclasses.replace(arrays, **changes)


def tiny_dataset() -> ImageDataset:
    """One's own data set, as a person would name it by import path."""
    return ImageDataset("tiny", tiny_arrays(), tiny_arrays())


def test_arrays_have_a_length() -> None:
    assert len(tiny_arrays()) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.zeros((3, 2, 2, 2))},
            "images must be a uint8 array.*got ndarray of float64",
        ),
        (
            {"images": np.zeros((3, 2, 2), np.uint8)},
            r"\(N, C, H, W\).*\(3, 2, 2\).*images\[:, None\]",
        ),
        ({"images": [[0]]}, "images must be a uint8 array.*got list"),
        ({"images": np.zeros((2, 2, 2, 3), np.uint8).T}, "C-contiguous.*np.ascontiguousarray"),
        ({"labels": np.array([0, 1, 1], np.int32)}, r"labels must be an int64 array.*astype"),
        ({"labels": np.array([[0], [1], [1]])}, r"labels must be.*\(N,\), got ndarray.*\(3, 1\)"),
        ({"labels": np.array([0, 1])}, "as many as the 3 images, got 2"),
        ({"labels": np.array([0, 1, 2])}, r"in \[0, 2\), one for each.*got 2 for image 2"),
        ({"labels": np.array([0, -2, 1])}, "or -1 where unknown, got -2 for image 1"),
        ({"class_names": ()}, r"in \[0, 0\)"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_arrays(**changes)


def test_a_torch_tensor_is_refused_by_name() -> None:
    import torch

    with pytest.raises(ValueError, match=r"got Tensor of torch.uint8, shape \(3, 2, 2, 2\)"):
        tiny_arrays(images=torch.zeros(3, 2, 2, 2, dtype=torch.uint8))


def test_a_part_may_be_empty() -> None:
    empty = tiny_arrays(images=np.empty((0, 2, 2, 2), np.uint8), labels=np.empty(0, np.int64))
    assert len(ImageDataset("tiny", tiny_arrays(), empty).test) == 0


def test_only_training_images_may_have_no_label() -> None:
    some = tiny_arrays(labels=np.array([0, UNLABELED, 1]))
    assert ImageDataset("tiny", some, tiny_arrays()).train.labels[1] == UNLABELED
    with pytest.raises(ValueError, match=r"labels of test .* got none for 1 of 3"):
        ImageDataset("tiny", tiny_arrays(), some)
    with pytest.raises(ValueError, match=r"labels of validation .* got none for 1 of 3"):
        ImageDataset("tiny", tiny_arrays(), tiny_arrays(), validation=some)


def test_a_validation_part_is_part_of_the_digest() -> None:
    arrays = tiny_arrays()
    assert digest_of(arrays, arrays, arrays) != digest_of(arrays, arrays)
    assert ImageDataset("tiny", arrays, arrays, validation=arrays).digest == digest_of(*[arrays] * 3)


def test_both_parts_have_the_same_classes_and_image_shape() -> None:
    with pytest.raises(ValueError, match="class_names of test must be those of train"):
        ImageDataset("tiny", tiny_arrays(), tiny_arrays(class_names=("cat", "fox")))
    with pytest.raises(ValueError, match=r"images of test .* \(2, 2, 2\), got \(1, 2, 4\)"):
        ImageDataset("tiny", tiny_arrays(), tiny_arrays(images=np.zeros((3, 1, 2, 4), np.uint8)))


def test_the_digest_tells_apart_what_differs_in_anything() -> None:
    arrays = tiny_arrays()
    other_image = arrays.images.copy()
    other_image[2, 1, 1, 1] += 1
    others = [
        tiny_arrays(images=other_image),
        tiny_arrays(images=arrays.images.reshape(3, 1, 2, 4)),  # the same bytes
        tiny_arrays(labels=np.array([0, 1, 0])),
        tiny_arrays(class_names=("cat", "do", "g")),
    ]
    digests = {digest_of(arrays, arrays)}
    digests |= {digest_of(other, arrays) for other in others}
    digests |= {digest_of(arrays, other) for other in others}
    assert len(digests) == 1 + 2 * len(others)
    assert tiny_dataset().digest == tiny_dataset().digest == digest_of(arrays, arrays)


# --- By name, or by import path


def test_importing_the_room_costs_neither_torch_nor_ray() -> None:
    code = "import sys, ssl_runner.datasets; print({'torch', 'ray', 'rich'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert printed.strip() == "set()"


@pytest.mark.parametrize("name", ["fashion_mnits", "FashionMNIST"])
def test_an_unknown_name_is_answered_with_a_guess_and_the_way_to_ones_own(name: str) -> None:
    message = f"import path package.module:function, got '{name}'. Did you mean fashion_mnist?"
    with pytest.raises(ValueError, match=message):
        load_dataset(name)


def test_ones_own_data_set_by_import_path() -> None:
    assert load_dataset(f"{__name__}:tiny_dataset").digest == tiny_dataset().digest


def raises_inside() -> ImageDataset:
    raise ZeroDivisionError("a fault in one's own code")


def returns_a_number() -> int:
    return 7


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.data:load", "no module 'no_such_package'"),
        (f"{__name__}:tiny_datasets", "has no 'tiny_datasets'"),
        (f"{__name__}:", "must be named as package.module:name"),
        (f"{__name__}:SMALL", "must be a function that needs no arguments.*not a callable"),
        (f"{__name__}:replace", "must be a function that needs no arguments.*'folder'"),
        (
            f"{__name__}:returns_a_number",
            "must return an ssl_runner.datasets.ImageDataset, got int",
        ),
    ],
)
def test_a_wrong_import_path_is_explained(path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(path)


def test_an_error_in_ones_own_code_travels_on() -> None:
    with pytest.raises(ZeroDivisionError, match="a fault in one's own code"):
        load_dataset(f"{__name__}:raises_inside")


def test_ones_own_data_set_takes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data_dir must be left out for"):
        load_dataset(f"{__name__}:tiny_dataset", tmp_path)


# --- The real data


def test_fashion_mnist_is_what_it_says(fashion_mnist: ImageDataset) -> None:
    assert fashion_mnist.digest == DIGEST
    for part, count in ((fashion_mnist.train, 60_000), (fashion_mnist.test, 10_000)):
        assert part.images.shape == (count, 1, 28, 28)
        assert np.bincount(part.labels).tolist() == [count // 10] * 10
        assert part.class_names[0] == "T-shirt/top"
        assert part.class_names[9] == "Ankle boot"
    # The first training image is the ankle boot that every tutorial shows.
    assert fashion_mnist.train.labels[0] == 9
    assert fashion_mnist.train.images[0].mean() == pytest.approx(97.25, abs=0.01)


def test_fetched_into_an_empty_cache_then_read_from_it(
    cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one test that downloads: by whichever way works from here."""
    from torchvision.datasets import FashionMNIST

    monkeypatch.undo()  # the real PATH, proxy and mirrors ...
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(cache_root))  # ... and an empty cache
    monkeypatch.delenv("SSL_RUNNER_DATA", raising=False)
    hosts = [FashionMNIST.mirrors[0] + f"{SMALL}.gz", "http://deb.debian.org/debian/"]
    if all(fetch.why_unreachable(host, 5) for host in hosts):
        pytest.skip("neither torchvision's host nor Debian's can be reached from here")
    said: list[str] = []
    assert load_dataset("fashion_mnist", say=said.append).digest == DIGEST
    assert left_in(cache_root) == WHOLE_CACHE
    said.clear()
    assert load_dataset("fashion_mnist", say=said.append).digest == DIGEST
    assert said == [f"Fashion-MNIST: from the cache {cache_root / 'fashion_mnist'}"]


# --- A folder of one's own


@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_unpacked_files_are_used_in_place(
    real_files: Files, tmp_path: Path, cache_root: Path, place: str
) -> None:
    folder_with(real_files, tmp_path / "mine" / place)
    said: list[str] = []
    assert load_dataset("fashion_mnist", tmp_path / "mine", said.append).digest == DIGEST
    assert said == [f"Fashion-MNIST: from {tmp_path / 'mine'}"]
    assert not cache_root.exists()


@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_packed_files_are_unpacked_once(
    packed_files: Files, tmp_path: Path, cache_root: Path, place: str
) -> None:
    mine = tmp_path / "mine"
    folder_with(packed_files, mine / place)
    said: list[str] = []
    assert load_dataset("fashion_mnist", mine, said.append).digest == DIGEST
    assert left_in(cache_root) == WHOLE_CACHE
    written = {path: path.stat().st_mtime_ns for path in find_files(mine, said.append).values()}
    assert find_files(mine, said.append).keys() == FILES.keys()
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())
    kept = cache_root / "fashion_mnist"
    assert said == [
        f"Fashion-MNIST: from {mine}, unpacked in {kept}",
        f"Fashion-MNIST: from {mine}, already unpacked in {kept}",
        f"Fashion-MNIST: from {mine}, already unpacked in {kept}",
    ]


def test_some_may_be_packed_and_some_not(
    real_files: Files, packed_files: Files, tmp_path: Path, cache_root: Path
) -> None:
    mine = folder_with(real_files | {SMALL: packed_files[SMALL]}, tmp_path / "mine")
    fashion_mnist.check(find_files(mine, print))
    assert left_in(cache_root) == WHOLE_CACHE


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def emptied(content: bytes) -> bytes:
    return b""


def overgrown(content: bytes) -> bytes:
    return content + b"\x00"


@pytest.mark.parametrize(
    ("packed", "damage"),
    [
        (False, cut),
        (False, flip_a_bit),
        (False, emptied),
        (False, overgrown),  # packed, zeros after the end are padding, and what comes out is right
        (True, cut),
        (True, flip_a_bit),
        (True, emptied),
    ],
)
def test_a_damaged_file_is_named_in_one_line(
    real_files: Files,
    packed_files: Files,
    tmp_path: Path,
    cache_root: Path,
    packed: bool,
    damage: Callable[[bytes], bytes],
) -> None:
    files = packed_files if packed else real_files
    mine = folder_with(files, tmp_path / "mine")
    damaged = replace(mine, files[SMALL].name, damage(files[SMALL].read_bytes()))
    with pytest.raises(DataError) as caught:
        load_dataset("fashion_mnist", mine)
    message = str(caught.value)
    assert message.startswith(f"{damaged}: must ")
    assert message.endswith("Cut short or damaged: copy it again.")
    assert "\n" not in message
    assert left_in(cache_root) <= {"fashion_mnist/.lock"}


def test_a_file_that_is_not_gzip_at_all(packed_files: Files, tmp_path: Path) -> None:
    mine = folder_with(packed_files, tmp_path / "mine")
    replace(mine, f"{SMALL}.gz", b"<html>404</html>")
    with pytest.raises(DataError, match=r"must be a whole gzip file .*Not a gzipped file"):
        load_dataset("fashion_mnist", mine)


@pytest.mark.parametrize("by_environment", [False, True])
def test_a_folder_that_was_asked_for_is_the_only_place(
    real_files: Files,
    tmp_path: Path,
    cache_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_environment: bool,
) -> None:
    folder_with(real_files, cache_root / "fashion_mnist" / RAW)  # would do, but was not asked for
    mine = folder_with(real_files, tmp_path / "mine")
    (mine / SMALL).unlink()
    if by_environment:
        monkeypatch.setenv("SSL_RUNNER_DATA", str(mine))
    prefix = "SSL_RUNNER_DATA: " if by_environment else ""
    message = f"^{prefix}{mine}: must hold .* but {SMALL} is missing. Copy it there.$"
    with pytest.raises(DataError, match=message):
        load_dataset("fashion_mnist", None if by_environment else mine)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    message = f"^{tmp_path / 'mien'}: must be a folder .* no such folder. Is the path right\\?$"
    with pytest.raises(DataError, match=message):
        load_dataset("fashion_mnist", tmp_path / "mien")


# --- The order of the places


def test_each_place_is_taken_when_those_before_it_are_gone(
    real_files: Files,
    packed_files: Files,
    tmp_path: Path,
    cache_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argument = folder_with(real_files, tmp_path / "argument")
    environment = folder_with(real_files, tmp_path / "environment")
    kept = cache_root / "fashion_mnist"
    folder_with(real_files, kept / RAW)
    debian = folder_with(packed_files, tmp_path / "debian")
    monkeypatch.setattr(fetch, "DEBIAN_FOLDER", debian)
    monkeypatch.setenv("SSL_RUNNER_DATA", str(environment))
    said: list[str] = []
    find_files(argument, said.append)
    find_files(None, said.append)
    monkeypatch.setenv("SSL_RUNNER_DATA", "")  # empty is the same as unset
    find_files(None, said.append)
    shutil.rmtree(kept)
    find_files(None, said.append)
    find_files(None, said.append)
    assert said == [
        f"Fashion-MNIST: from {argument}",
        f"Fashion-MNIST: from {environment}",
        f"Fashion-MNIST: from the cache {kept}",
        f"Fashion-MNIST: from {debian}, unpacked in {kept}",
        f"Fashion-MNIST: from the cache {kept}",
    ]


def test_packed_files_that_a_person_put_in_the_cache(packed_files: Files, cache_root: Path) -> None:
    folder_with(packed_files, cache_root / "fashion_mnist")
    fashion_mnist.check(find_files(None, print))
    assert left_in(cache_root) >= WHOLE_CACHE


@pytest.mark.parametrize("damage", [cut, flip_a_bit])
def test_a_damaged_file_in_the_cache_is_set_aside_and_replaced(
    real_files: Files,
    packed_files: Files,
    tmp_path: Path,
    cache_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytes], bytes],
) -> None:
    raw = folder_with(real_files, cache_root / "fashion_mnist" / RAW)
    content = damage(real_files[SMALL].read_bytes())
    replace(raw, SMALL, content)
    monkeypatch.setattr(fetch, "DEBIAN_FOLDER", folder_with(packed_files, tmp_path / "debian"))
    said: list[str] = []
    fashion_mnist.check(find_files(None, said.append))
    assert said[0].startswith(f"{raw / SMALL}: must have the SHA-256 0402a96d92fd… unpacked, got ")
    assert said[0].endswith(f"Set aside as {SMALL}.damaged")
    assert said[1].startswith(f"Fashion-MNIST: from {tmp_path / 'debian'}, unpacked in")
    assert (raw / f"{SMALL}.damaged").read_bytes() == content
    assert find_files(None, said.append) == {name: raw / name for name in FILES}


def test_a_damaged_debian_package_is_said_and_passed_over(
    packed_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian = folder_with(packed_files, tmp_path / "debian")
    replace(debian, f"{SMALL}.gz", b"")
    monkeypatch.setattr(fetch, "DEBIAN_FOLDER", debian)
    said: list[str] = []
    with pytest.raises(DataError, match="could not be fetched"):
        find_files(None, said.append)
    assert said[0].startswith(f"Fashion-MNIST: not from Debian's package: {debian / SMALL}.gz: must")


# --- The cache, and others who use it


def test_a_cache_that_cannot_be_written(
    real_files: Files, packed_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "file" / "cache"))  # even root can't
    find_files(folder_with(real_files, tmp_path / "unpacked"), print)  # needs no cache
    for data_dir in (folder_with(packed_files, tmp_path / "packed"), None):
        with pytest.raises(
            DataError, match=r"cache must be a writable folder.*SSL_RUNNER_CACHE"
        ) as caught:
            find_files(data_dir, print)
        assert "\n" not in str(caught.value)


def test_two_processes_fill_one_cache(
    packed_files: Files, tmp_path: Path, cache_root: Path, runs: Runs
) -> None:
    mine, go = folder_with(packed_files, tmp_path / "mine"), tmp_path / "go"
    code = f"""if True:
        import pathlib, time
        from ssl_runner.datasets import load_dataset
        print("ready", flush=True)
        while not pathlib.Path({str(go)!r}).exists():
            time.sleep(0.001)
        print(load_dataset("fashion_mnist").digest)
    """
    environment = os.environ | {"SSL_RUNNER_DATA": str(mine)}
    both = [runs.start(code=code, environment=environment) for _ in range(2)]
    for run in both:
        run.wait_for(lambda: all(run.stdout.startswith("ready\n") for run in both))
    go.touch()
    printed = [run.succeed() for run in both]
    assert [text.splitlines()[-1] for text in printed] == [DIGEST, DIGEST], printed
    assert left_in(cache_root) == WHOLE_CACHE
    # Whoever came second found the files there, by waiting or by looking.
    assert sum(f"{mine}, unpacked in" in text for text in printed) == 1
    assert sum(f"{mine}, already unpacked in" in text for text in printed) == 1


def test_a_process_killed_while_it_unpacks_leaves_nothing_that_counts(
    packed_files: Files, tmp_path: Path, cache_root: Path, runs: Runs
) -> None:
    mine = folder_with(packed_files, tmp_path / "mine")
    slowly = """if True:
        import pathlib, time
        from ssl_runner.datasets import fashion_mnist
        chunks = fashion_mnist._chunks
        def slow_chunks(path):
            for chunk in chunks(path):
                yield chunk
                time.sleep(0.05)
        fashion_mnist._chunks = slow_chunks
        fashion_mnist.find_files(None, print)
    """
    kept = cache_root / "fashion_mnist"
    run = runs.start(code=slowly, environment=os.environ | {"SSL_RUNNER_DATA": str(mine)})
    run.wait_for(lambda: any(path.stat().st_size > 2**20 for path in kept.glob("tmp-*/*/*")))
    runs.kill()
    run.end()
    assert any(kept.glob("tmp-*"))
    said: list[str] = []
    with pytest.raises(DataError, match="could not be fetched"):
        find_files(None, said.append)  # the cache alone has nothing ...
    assert not any(kept.glob("tmp-*"))  # ... and the dead one's leavings are swept
    fashion_mnist.check(find_files(mine, said.append))
    assert left_in(cache_root) == WHOLE_CACHE


def test_whoever_waits_for_the_cache_is_told_so(tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        with cache.lock_cache(tmp_path, said.append):
            said.append("my turn")

    with cache.lock_cache(tmp_path, said.append):
        thread = threading.Thread(target=second)
        thread.start()
        wait_until(lambda: bool(said), thread.is_alive)
        assert said == [f"waiting for another process that is preparing {tmp_path}"]
    thread.join()
    assert said[1:] == ["my turn"]


def test_where_the_cache_is_without_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_RUNNER_CACHE")
    folder = cache.cache_folder("fashion_mnist")
    assert folder.is_absolute()
    assert folder.parts[-2:] == ("ssl_runner", "fashion_mnist")


# --- Downloads


@pytest.fixture
def mirror(
    serve: Callable[[Path], str],
    packed_files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder that torchvision downloads from, after a mirror that is out of order."""
    from torchvision.datasets import FashionMNIST

    folder = folder_with(packed_files, tmp_path / "mirror")
    resources = [
        (path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in packed_files.values()
    ]
    monkeypatch.setattr(FashionMNIST, "mirrors", [NOWHERE, serve(folder)])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    return folder


def test_torchvision_downloads(mirror: Path, cache_root: Path) -> None:
    said: list[str] = []
    assert load_dataset("fashion_mnist", say=said.append).digest == DIGEST
    assert said[0].startswith("Fashion-MNIST: downloading 31 MB from http://127.0.0.1:")
    assert said[1:] == [f"Fashion-MNIST: from the cache {cache_root / 'fashion_mnist'}"]
    assert left_in(cache_root) == WHOLE_CACHE
    assert socket.getdefaulttimeout() is None


def test_what_torchvision_could_not_download_is_said(mirror: Path, cache_root: Path) -> None:
    replace(mirror, f"{SMALL}.gz", b"something else")
    with pytest.raises(DataError, match=r"\n  torchvision: .*File not found or corrupted.*\n"):
        find_files(None, print)
    assert left_in(cache_root) == {"fashion_mnist/.lock"}


def test_a_host_that_is_there_answers(serve: Callable[[Path], str], tmp_path: Path) -> None:
    url = serve(tmp_path)
    assert fetch.why_unreachable(url, 5) is None
    assert fetch.why_unreachable(url + "nothing-here", 5) == "File not found"
    assert fetch.why_unreachable(NOWHERE, 5) == "Connection refused"


def test_a_host_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(fetch, "PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(DataError, match=r"\n  torchvision: .*(timed out|no answer in 0.5 s)\n"):
            find_files(None, print)


def test_a_host_that_drips_is_not_waited_for() -> None:
    """No single read times out, just as no timeout covers the look-up of a host's name."""

    enough = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            while not enough.wait(0.1):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        try:
            assert fetch.why_unreachable(url, 0.3) == "no answer in 0.3 s"  # and it drips on
        finally:
            enough.set()
            thread.join()


def test_when_nothing_works_all_is_told(cache_root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        load_dataset("fashion_mnist", say=said.append)
    kept, debian = cache_root / "fashion_mnist", tmp_path / "no-debian-package"
    no_folder = "must be a folder with Fashion-MNIST's four files, got no such folder"
    assert str(caught.value).splitlines() == [
        "Fashion-MNIST was not found and could not be fetched. Tried:",
        f"  cache: {kept}: {no_folder}. Is the path right?",
        f"  Debian's package: {debian}: {no_folder}. Is the path right?",
        f"  torchvision: {NOWHERE}: Connection refused",
        "  Debian's archive: no apt-get here: this way is for Debian, Ubuntu and the like",
        "Any one of these helps:",
        "  sudo apt-get install dataset-fashion-mnist",
        f"  copy {', '.join(FILES)}, unpacked or .gz, to a folder X and pass --data-dir X",
    ]
    assert left_in(cache_root) == {"fashion_mnist/.lock"}


needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this system has no apt")


@needs_apt
@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        (f"deb [trusted=yes] {NOWHERE} stable main\n", "W: Failed to fetch .*Could not connect"),
        ("", "E: Unable to locate package dataset-fashion-mnist"),
    ],
)
def test_what_apt_complains_of_is_told(
    tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch, sources: str, complaint: str
) -> None:
    (tmp_path / "sources.list").write_text(sources)
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "/dev/null";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(DataError, match=f"\n  Debian's archive: .*{complaint}.*\nAny one of these"):
        find_files(None, print)
    assert left_in(cache_root) == {"fashion_mnist/.lock"}


def test_a_command_that_takes_too_long_is_ended_with_its_helpers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    command = ["sh", "-c", "sleep 10000 & echo $!; wait"]
    log = tmp_path / "log"
    # It has taken too long once its helper has said who it is.
    monkeypatch.setattr(fetch, "time", SimpleNamespace(monotonic=lambda: log.stat().st_size))
    with pytest.raises(DataError, match="sh took longer than"):
        fetch._run(command, tmp_path, 0, lambda: None)
    helper = log.read_text().strip()
    # Z: dead, and not yet counted by its parent.
    wait_until(lambda: state_of(helper) in "XZ")


def state_of(pid: str) -> str:
    listed = subprocess.run(["ps", "-o", "state=", "-p", pid], capture_output=True, text=True)
    return listed.stdout.strip()[:1]


def test_on_a_terminal_the_bytes_so_far_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    (tmp_path / "package.deb").write_bytes(bytes(2_500_000))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with fetch._growth_shown(tmp_path) as tick:
        tick()
    assert "2.5/? MB" in terminal.getvalue()

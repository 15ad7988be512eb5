"""Which listed image goes where: every labeled one once, by class, seeded; and the same image twice."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_runner.datasets.listing.duplicates import same_content
from ssl_runner.datasets.listing.listing import Listing, Part
from ssl_runner.datasets.listing.natural import natural_order
from ssl_runner.datasets.listing.parts import Parts, assign
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError
from ssl_runner.labels import UNLABELED
from ssl_runner.split import draw_test

# n = listed images, K = classes

examples = settings(max_examples=100, deadline=None, derandomize=True)


@dataclass
class NoImages:
    """As many images as one says, none of which is ever read."""

    count: int

    def __len__(self) -> int:
        return self.count

    def signature(self) -> str:
        return ""

    def chunks(self) -> Sequence[range]:
        return [range(self.count)]

    def read(self, chunk: range) -> Iterator[bytes]:
        raise AssertionError("no image is needed to share them out")

    def name_of(self, index: int) -> str:
        return f"{index}.png"


def listing(
    labels: Sequence[str | None],
    parts: Sequence[Part] | None = None,
    class_names: tuple[str, ...] | None = None,
    **left_out: int,
) -> Listing:
    return Listing("toys", NoImages(len(labels)), labels, parts, left_out, class_names)


def of_words(text: str, class_names: tuple[str, ...] | None = None) -> Listing:
    """A listing from words such as `train:cat` and `test:`, the latter without a label."""
    words: dict[str, Part] = {"train": "train", "validation": "validation", "test": "test"}
    rows = [word.partition(":") for word in text.split()]
    return listing(
        [label or None for _, _, label in rows], [words[part] for part, _, _ in rows], class_names
    )


# --- Natural order


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["class 10", "class 2"], ["class 2", "class 10"]),
        (["10", "9", "-", "a1", "1a"], ["1a", "9", "10", "-", "a1"]),
        (["b", "A", "a", "B"], ["A", "a", "B", "b"]),
        (["1.10.2", "1.9.3", "1.10"], ["1.9.3", "1.10", "1.10.2"]),
        (["x1", "x01", "x001", "x02"], ["x001", "x01", "x1", "x02"]),
        (["9" * 5000, "1" + "0" * 5000, ""], ["", "9" * 5000, "1" + "0" * 5000]),
        (["é", "z", "²", "٣"], None),  # digits that are no ASCII digits are letters
    ],
)
def test_natural_order(names: list[str], ordered: list[str] | None) -> None:
    expected = natural_order(names) if ordered is None else ordered
    assert natural_order(names) == natural_order(names[::-1]) == expected


@examples
@given(st.lists(st.integers(0, 10**30), unique=True), st.text(max_size=5), st.text(max_size=5))
def test_numbers_between_equal_texts_are_in_their_own_order(
    numbers: list[int], before: str, after: str
) -> None:
    before, after = f"{before}_", f"_{after}"
    names = [f"{before}{number}{after}" for number in numbers]
    assert natural_order(names) == [f"{before}{number}{after}" for number in sorted(numbers)]


@examples
@given(st.lists(st.text(), unique=True))
def test_natural_order_does_not_depend_on_the_order_before(names: list[str]) -> None:
    assert natural_order(names) == natural_order(sorted(names))


# --- Parts that the data name


def test_named_parts_as_they_are() -> None:
    found = assign(
        of_words("test:b train:a train: validation:a train:c10 train:c2 train:b validation:b train:a "
                 "test:c2 test:c10"),
        FileSettings(),
    )  # fmt: skip
    assert found.class_names == ("a", "b", "c2", "c10")
    assert found.labels.tolist() == [1, 0, UNLABELED, 0, 3, 2, 1, 1, 0, 2, 3]
    assert found.labels.dtype == np.int64
    assert found.train.tolist() == [1, 2, 4, 5, 6, 8]
    assert found.validation is not None
    assert found.validation.tolist() == [3, 7]
    assert found.test.tolist() == [0, 9, 10]
    assert found.test_fraction is None
    assert found.left_out == {}
    assert found.notes == (
        "toys: classes with fewer than 10 labeled training images: "
        "'a' (2), 'b' (1), 'c2' (1), 'c10' (1)",
    )


def test_class_names_of_the_data_keep_their_order() -> None:
    words = "train:b train:b train:a test:a"
    found = assign(of_words(words, class_names=("b", "never", "a")), FileSettings())
    assert found.class_names == ("b", "never", "a")
    assert found.labels.tolist() == [0, 0, 2, 2]
    assert "'never' (0)" in found.notes[0]


def test_images_without_a_label_are_for_training_only() -> None:
    words = "train:a train:b validation: test:a test: test: train: validation:b"
    found = assign(of_words(words), FileSettings())
    assert found.validation is not None
    assert [found.train.tolist(), found.validation.tolist(), found.test.tolist()] == [
        [0, 1, 6],
        [7],
        [3],
    ]
    assert found.left_out == {
        "without a label in the validation part": 1,
        "without a label in the test part": 2,
    }
    assert "toys: 2 test images without a label are left out" in found.notes


def test_what_the_listing_left_out_stays_counted() -> None:
    data = listing(["a", "b"] * 20, None, None, twice=3)
    assert assign(data, FileSettings()).left_out == {"twice": 3}
    assert data.left_out == {"twice": 3}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (listing([None, None]), "toys: must have labeled images, got none"),
        (listing([]), "toys: must have labeled images, got none"),
        (listing(["a", "a", None]), "labels of two classes or more, got only 'a'"),
        (
            listing(["a", "b", "b", "c", None]),
            "every class must have two labeled images or more, got one of 'a', 'c'",
        ),
        (
            listing([*map(str, range(13)), "x", "x"]),
            "one of '0', '1', '2', '3', '4', '5', '6', '7', '8', '9' and 3 more",
        ),
        (
            of_words("train:a train:b test:a test:b test:cat test:cat validation:a"),
            r"labels of the test part must occur in the training part, got 'cat' \(2\)",
        ),
        (
            of_words("train:a train:b test:a test:b validation:d validation:d train:"),
            r"labels of the validation part must occur in the training part, got 'd' \(2\)",
        ),
        (listing(["a", "b\ud800"] * 2), r"names of classes must be text.*got 'b\\ud800'"),
        (of_words("train:a train:b train:a train:b validation:a"), "a labeled test image, got none"),
        (of_words("train:a train:b train:a train:b test:"), "a labeled test image, got none"),
        (of_words("test:a test:b test:a test:b"), "a labeled training image, got none"),
        (of_words("test:a test:b test:a test:b train:"), "a labeled training image, got none"),
    ],
)
def test_what_is_no_classification_problem_is_refused(data: Listing, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        assign(data, FileSettings())
    assert "\n" not in str(caught.value)


# --- Parts that are drawn


@st.composite
def labeled(draw: st.DrawFn) -> list[str | None]:
    """Two to six classes of 2 to 60 images each, and some images without a label, in any order."""
    sizes = draw(st.lists(st.integers(2, 60), min_size=2, max_size=6))
    labels: list[str | None] = [f"class {k}" for k, size in enumerate(sizes) for _ in range(size)]
    labels += [None] * draw(st.integers(0, 30))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return [labels[index] for index in order]


fractions = st.floats(0.001, 0.999)
seeds = st.integers(0, 2**40)


@examples
@given(labeled(), fractions, seeds)
def test_every_image_is_drawn_once_and_every_class_by_its_share(
    labels: list[str | None], fraction: float, seed: int
) -> None:
    files = FileSettings(test_fraction=fraction, test_seed=seed)
    found = assign(listing(labels), files)
    assert Counter([*found.train.tolist(), *found.test.tolist()]) == Counter(range(len(labels)))
    assert found.validation is None
    assert (np.diff(found.train) > 0).all()
    assert (np.diff(found.test) > 0).all()
    for k, name in enumerate(found.class_names):
        images, drawn = labels.count(name), int((found.labels[found.test] == k).sum())
        assert 1 <= drawn < images
        assert abs(drawn - min(max(fraction * images, 1), images - 1)) <= 0.5 + 1e-9
    assert UNLABELED not in found.labels[found.test]
    assert found.test_fraction == fraction
    assert found.notes[0].startswith(f"toys: {len(found.test)} of its ")


@examples
@given(labeled(), seeds)
def test_a_training_part_alone_is_as_none(labels: list[str | None], seed: int) -> None:
    files = FileSettings(test_seed=seed)
    named = assign(listing(labels, ["train"] * len(labels)), files)
    unnamed = assign(listing(labels), files)
    assert named.test.tolist() == unnamed.test.tolist()
    assert named.train.tolist() == unnamed.train.tolist()
    assert named.test_fraction == files.test_fraction


@examples
@given(labeled(), seeds)
def test_images_without_a_label_do_not_change_what_is_drawn(
    labels: list[str | None], seed: int
) -> None:
    files = FileSettings(test_seed=seed)
    known = [index for index, label in enumerate(labels) if label is not None]
    alone = assign(listing([labels[index] for index in known]), files)
    assert assign(listing(labels), files).test.tolist() == [known[index] for index in alone.test]


def test_the_seed_decides_which_test_images() -> None:
    labels = ["a", "b"] * 100
    drawn = {
        tuple(assign(listing(labels), FileSettings(test_seed=seed)).test.tolist()) for seed in range(20)
    }
    assert len(drawn) == 20
    # A table may hold trials of several releases: the same seed must mean the same test images.
    assert draw_test(np.array([0, 1] * 6), 1 / 3, test_seed=0).tolist() == [2, 4, 5, 9]


# --- The same image twice


def parts_with(labels: str, train: str, test: str, validation: str = "") -> Parts:
    """Images by position in `labels`: a class's digit, or `.` for none."""
    numbers = np.array([UNLABELED if sign == "." else int(sign) for sign in labels], np.int64)
    return Parts(
        class_names=("cat", "dog"),
        labels=numbers,
        train=np.array([int(sign) for sign in train], np.int64),
        test=np.array([int(sign) for sign in test], np.int64),
        validation=np.array([int(sign) for sign in validation], np.int64) if validation else None,
        left_out={},
        test_fraction=None,
        notes=(),
    )


def digests(contents: str) -> "np.ndarray[tuple[int], np.dtype[np.bytes_]]":
    """A digest for each sign, equal for equal signs; `-`: unreadable."""
    return np.array([b"" if sign == "-" else sign.encode() * 16 for sign in contents], "S16")


def lines_of(contents: str, parts: Parts) -> tuple[str, ...]:
    return same_content(digests(contents), parts, lambda index: f"{index}.png")


def test_images_that_differ_are_no_matter() -> None:
    assert lines_of("abcdef", parts_with("0101.0", "01234", "5")) == ()
    # Unreadable images have nothing in common, and neither count images that are in no part.
    assert lines_of("-a-bb-", parts_with("011100", "012", "35")) == ()


def test_equal_images_with_equal_labels_in_one_part_are_allowed() -> None:
    assert lines_of("aabaa.", parts_with("0010.1", "01234", "5")) == ()


def test_equal_images_in_two_parts_are_counted() -> None:
    parts = parts_with("00000.1", "0156", "23", "4")
    assert lines_of("abcabcd", parts) == (
        "2 of the 2 test images are training images too, by content (the first is 2.png): "
        "figures on them flatter the model",
        "1 of the 1 validation images are training images too, by content (the first is 4.png): "
        "figures on them flatter the model",
    )
    assert lines_of("abccc-d", parts) == (
        "1 of the 1 validation images are test images too, by content (the first is 4.png): "
        "figures on them flatter the model",
    )


def test_equal_images_with_different_labels_are_refused() -> None:
    parts = parts_with("0101100", "013456", "2")
    message = "equal labels, got 2 with different ones: 1.png is 'dog' and 2.png is 'cat'. Correct"
    with pytest.raises(DataError, match=message):
        lines_of("xccbbbx", parts)


@examples
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("01."), st.sampled_from("tes")), min_size=1)
)
def test_as_the_slow_obvious_way(images: list[tuple[int, str, str]]) -> None:
    contents = [content for content, _, _ in images]
    labels = np.array([UNLABELED if label == "." else int(label) for _, label, _ in images])
    train, test = (
        np.array([i for i, (_, _, p) in enumerate(images) if p == part], int) for part in "te"
    )
    parts = Parts(("cat", "dog"), labels, train, None, test, {}, None, ())
    used = [*train.tolist(), *test.tolist()]
    known = {(contents[i], int(labels[i])) for i in used if labels[i] != UNLABELED}
    contradictions = [content for content in range(10) if {(content, 0), (content, 1)} <= known]
    array = np.array([b"%016d" % content for content in contents], "S16")
    if contradictions:
        with pytest.raises(DataError, match=f"got {len(contradictions)} with different ones"):
            same_content(array, parts, str)
        return
    leaked = [i for i in test.tolist() if contents[i] in {contents[j] for j in train.tolist()}]
    lines = same_content(array, parts, str)
    assert len(lines) == bool(leaked)
    if leaked:
        assert lines[0].startswith(
            f"{len(leaked)} of the {len(test)} test images are training images too"
        )
        assert f"the first is {leaked[0]})" in lines[0]

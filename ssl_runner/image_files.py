"""Image files decoded at each use: for one's own transforms, and for more images than memory holds."""

import os
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from ssl_runner.errors import DataError, Described, require
from ssl_runner.imports import import_by_path
from ssl_runner.loader import Batch
from ssl_runner.sampler import RankBatch

# N = images, B = images in this rank's batch, C = channels, H and W = height and width

Transform = Callable[[Image.Image], torch.Tensor]


class ImageFiles(Dataset[Any]):
    """Images in files, some of them without a label: the sibling of `PartiallyLabeledDataset`.

    `make_loader(dataset, HomogeneousBatchSampler(…), num_workers=2)` gives its batches, with all that
    the sampler promises. What a transform draws at random is drawn in the loader's processes, so it
    depends on their number, and is not drawn again the same after a restore.

    Args:
        paths: The files, N of them.
        targets_N: Class of each image, int64, `UNLABELED` where there is none. It holds no label that
            the training must not see.
        transform: Makes a tensor (C, H, W), uint8 or floating, of a PIL image, all of one shape; or its
            import path `package.module:function`. It must be known by name, not a lambda, where the
            loader's processes are spawned.
        mode: The PIL mode that each image is brought to first, after it is turned upright by its EXIF
            orientation: `RGB` or `L` (gray).

    Raises:
        InputError: If there are not as many targets as paths, or nothing is at the import path.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        targets_N: np.ndarray,
        transform: Transform | str,
        *,
        mode: str = "RGB",
    ) -> None:
        fix = "Give each image a target, UNLABELED where it has none."
        require(
            len(paths) == len(targets_N), "targets", f"as many as {len(paths)}", len(targets_N), fix
        )
        # Not a list: counting the references to its texts would copy it into each loader process.
        self._paths = pa.array(map(os.fsencode, paths), pa.large_binary())
        self.targets_N = np.asarray(targets_N, dtype=np.int64)
        self.transform = as_transform(transform)
        self.mode = mode

    def __len__(self) -> int:
        return len(self.targets_N)

    def path(self, index: int) -> str:
        """The file of an image."""
        return os.fsdecode(self._paths[index].as_py())

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One image, (C, H, W), and its target."""
        path = self.path(index)
        return transformed(path, path, self.transform, self.mode), torch.tensor(self.targets_N[index])

    def __getitems__(self, indices: RankBatch) -> Batch:
        """A whole batch.

        Raises:
            DataError: If a file is no image, or the transform gives something else than it should.
        """
        paths = [self.path(index) for index in indices]
        images = [transformed(path, path, self.transform, self.mode) for path in paths]
        targets = torch.from_numpy(self.targets_N[indices])
        return Batch.of(indices, stacked(images, paths), targets)


def as_transform(transform: Transform | str) -> Transform:
    """A transform, looked up if it is an import path.

    Raises:
        InputError: If nothing is there, or it can't be called.
    """
    found = import_by_path(transform, "transform") if isinstance(transform, str) else transform
    fix = "It takes a PIL image and gives a tensor (C, H, W)."
    require(callable(found), "transform", "a function, or the import path of one", found, fix)
    function: Transform = found
    return function


def transformed(source: str | IO[bytes], name: str, transform: Transform, mode: str) -> torch.Tensor:
    """An encoded image, decoded and transformed; (C, H, W).

    Args:
        source: The file, or its bytes.
        name: What to call it in an error.
        transform: What is made of it.
        mode: PIL's mode that it is brought to before.

    Raises:
        DataError: If it can't be decoded, or the transform gives no such tensor.
    """
    try:
        with Image.open(source) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
            image = image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = (
            getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        )
        raise DataError(
            f"{name}: can't be decoded ({reason}). Leave it out, or copy it again."
        ) from None
    tensor = transform(image)
    is_right = (
        isinstance(tensor, torch.Tensor)
        and tensor.ndim == 3
        and (tensor.dtype == torch.uint8 or tensor.is_floating_point())
    )
    if not is_right:
        got = type(tensor).__name__
        if isinstance(tensor, torch.Tensor):
            got = f"{tensor.dtype}, shape {tuple(tensor.shape)}"
        raise DataError(
            f"the transform must give a tensor (C, H, W), uint8 or floating, got {got} for {name}. "
            "torchvision.transforms.functional:pil_to_tensor makes one."
        )
    return tensor


def stacked(images: Sequence[torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    """Images of one shape as one tensor, (B, C, H, W).

    Raises:
        DataError: If they differ in shape or type: the first that does.
    """
    first = images[0]
    for image, name in zip(images, names, strict=True):
        if image.shape != first.shape or image.dtype != first.dtype:
            got = Described(f"{tuple(image.shape)}, {image.dtype} for {name}")
            raise DataError(
                f"the transform must give one shape and type, {tuple(first.shape)}, {first.dtype} as "
                f"for {names[0]}, got {got}. Resize and convert in it."
            )
    return torch.stack(list(images))

"""Data sets as arrays: named ones, found or downloaded and checked; and a person's own files.

| file | what lives there |
|---|---|
| `settings.py` | which data, how its files are read, and which of its labels are kept |
| `load.py` | a data set by name, from files or by import path |
| `arrays.py` | what a data set is: `ImageArrays`, `ImageDataset` and its digest |
| `listing/` | what a person's own files hold: tables, folders, Parquet; parts and classes |
| `given_labels.py` | labels that a person gave in a table of their own |
| `decoded/` | images decoded once into a cache, which all processes map |
| `fashion_mnist.py` | where Fashion-MNIST is looked for, how its files are checked and read |
| `torchvision_sets.py` | MNIST, CIFAR10, STL10 and the like, found and read by torchvision's classes |
| `digits.py` | scikit-learn's digits |
| `fetch.py` | the two ways to download |
| `picture.py` | a grid of images with their class names |
"""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.datasets.arrays import ImageArrays as ImageArrays
    from ssl_runner.datasets.arrays import ImageDataset as ImageDataset
    from ssl_runner.datasets.arrays import digest_of as digest_of
    from ssl_runner.datasets.load import DataError as DataError
    from ssl_runner.datasets.load import load_dataset as load_dataset

__getattr__ = lazy_names(
    __name__,
    {
        "DataError": "load",
        "ImageArrays": "arrays",
        "ImageDataset": "arrays",
        "digest_of": "arrays",
        "load_dataset": "load",
    },
)

"""Named data sets as arrays: found, downloaded if needed, and checked before use.

| file | what lives there |
|---|---|
| `settings.py` | which data, how its files are read, and which of its labels are kept |
| `load.py` | a data set by name or import path |
| `arrays.py` | what a data set is: `ImageArrays`, `ImageDataset` and its digest |
| `listing.py` | what a data set's files hold, before any image is decoded |
| `named_path.py` | from a path that the user names to a listing: `list_images` |
| `tables.py`, `text_tables.py` | a table of files and labels; a CSV, TSV or JSONL file as columns |
| `columns.py`, `arrow_columns.py` | which column holds what; a Parquet file's columns as text |
| `folders.py`, `image_files.py` | images in folders named after classes; images in files of their own |
| `parquet.py`, `parquet_images.py` | Parquet files with the images inside; images in their rows |
| `parts.py`, `natural.py` | which image goes where, its class as a number; natural order |
| `duplicates.py` | images with equal content |
| `load_files.py` | a data set from a person's own image files |
| `make.py` | an entry of the cache made from files |
| `decode.py` | one encoded image to pixels |
| `pool.py` | all images read by parallel processes |
| `store.py` | the cache of decoded images |
| `mapped.py` | images mapped from a file, not kept resident |
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

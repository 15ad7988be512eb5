"""What is learned from an unlabeled batch.

`base.py` is what a method is and what it gets to see, `methods.py` and `matching.py` have the built-in
ones, `build.py` makes one by name or import path, `settings.py` says which hyperparameters each takes.
"""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.methods.base import LabeledBatch as LabeledBatch
    from ssl_runner.methods.base import Method as Method
    from ssl_runner.methods.base import Networks as Networks
    from ssl_runner.methods.base import UnlabeledBatch as UnlabeledBatch
    from ssl_runner.methods.build import build_method as build_method

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("LabeledBatch", "Method", "Networks", "UnlabeledBatch"), "base"),
        "build_method": "build",
    },
)

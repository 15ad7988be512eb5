"""Which images to label next, and which labels to look at again: pure functions over arrays.

`strategies.py` has the table of strategies and `choose`; each strategy is also a function by itself.
"""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.selection.choice import Choice as Choice
    from ssl_runner.selection.mislabeled import folds as folds
    from ssl_runner.selection.mislabeled import suspects as suspects
    from ssl_runner.selection.strategies import STRATEGIES as STRATEGIES
    from ssl_runner.selection.strategies import choose as choose

# No module has the name of a function that it holds: importing it would hide the function.
__getattr__ = lazy_names(
    __name__,
    {
        "STRATEGIES": "strategies",
        "Choice": "choice",
        "choose": "strategies",
        "folds": "mislabeled",
        "suspects": "mislabeled",
    },
)

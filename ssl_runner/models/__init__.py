"""The classifiers: `cnn.py` has the built-in ones, `build.py` makes one by name or import path."""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.models.build import build_model as build_model
    from ssl_runner.models.cnn import CNN as CNN
    from ssl_runner.models.cnn import AdaptiveCNN as AdaptiveCNN

__getattr__ = lazy_names(__name__, {"AdaptiveCNN": "cnn", "CNN": "cnn", "build_model": "build"})

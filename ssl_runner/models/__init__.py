"""The classifiers: `cnn.py` and `wide_resnet.py` have the built-in ones, `vision.py` torchvision's.
`build.py` makes one by name or import path; `batch_norm.py` has several ranks normalize as one."""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.models.batch_norm import synchronize as synchronize
    from ssl_runner.models.build import build_model as build_model
    from ssl_runner.models.build import check_models as check_models
    from ssl_runner.models.cnn import CNN as CNN
    from ssl_runner.models.cnn import AdaptiveCNN as AdaptiveCNN
    from ssl_runner.models.wide_resnet import WideResNet as WideResNet

__getattr__ = lazy_names(
    __name__,
    {
        "AdaptiveCNN": "cnn",
        "CNN": "cnn",
        "WideResNet": "wide_resnet",
        "build_model": "build",
        "check_models": "build",
        "synchronize": "batch_norm",
    },
)

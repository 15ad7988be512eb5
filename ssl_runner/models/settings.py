"""Settings: the model. `MODELS` lists the built-in ones."""

from dataclasses import dataclass, replace

from ssl_runner.errors import require
from ssl_runner.settings import Real, Text, check, is_torchvision, require_known, setting

MODELS = {
    "CNN": "ssl_runner.models.cnn:CNN",
    "AdaptiveCNN": "ssl_runner.models.cnn:AdaptiveCNN",
    "WRN-28-2": "ssl_runner.models.wide_resnet:WideResNet",
}
"""The built-in models, each with its import path."""

SMALL_STEMS = ("resnet", "resnext", "wide_resnet", "densenet")
"""Families of torchvision's models that have a stem for small images."""

_WITHOUT_DROPOUT = ("resnet", "resnext", "wide_resnet", "regnet", "shufflenet", "convnext", "maxvit")
_WITHOUT_BATCH_NORM = ("CNN", "AdaptiveCNN")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model.

    Raises:
        InputError: If a setting is out of its range.
    """

    model: Text = setting(
        "CNN",
        "model: a name, torchvision:NAME, or an import path module:Class",
        column="model, by name or import path",
    )
    dropout: Real | None = setting(
        None,
        "dropout, in most models before the last layer; none: the model's own, 0.25 for the CNNs",
        column="dropout; null: the model has none, or keeps torchvision's own",
        least=0,
        below=1,
        fix="Leave it out for the model's own.",
    )
    small_images: bool = setting(
        False,
        "for 32×32: torchvision's ResNets and DenseNets begin with a 3×3 convolution of stride 1 and "
        "no pool",
        column="whether torchvision's model begins with a stem for small images",
    )
    weights_file: Text | None = setting(
        None,
        "file of a state_dict that torchvision's model starts from; layers that do not fit start "
        "fresh; none: all of them do",
        column="file that torchvision's model started from; its content is in sources; null: none",
    )
    sync_batch_norm: bool = setting(
        False,
        "batch normalization over the images of all workers, not over each worker's own",
        column="whether batch normalization was over the images of all workers",
    )

    def __post_init__(self) -> None:
        if not is_torchvision(self.model):
            require_known("model", self.model, MODELS)
        check(self)
        has_none = self.small_images and is_torchvision(self.model) and not self._has_small_stem
        families = ", ".join(f"{family}…" for family in SMALL_STEMS)
        fix = f"Families with a stem for small images: {families}."
        require(not has_none, "small_images", f"false for {self.model}", self.small_images, fix)

    @property
    def _has_small_stem(self) -> bool:
        return self.model.removeprefix("torchvision:").startswith(SMALL_STEMS)

    def resolved(self) -> "ModelSettings":
        """The same without the settings that the model does not take, and its own dropout where that
        is known."""
        of_torchvision = is_torchvision(self.model)
        dropout = self.dropout
        if of_torchvision:
            without = self.model.removeprefix("torchvision:").startswith(_WITHOUT_DROPOUT)
            dropout = None if without else dropout
        elif self.model == "WRN-28-2":
            dropout = None
        elif dropout is None:
            dropout = 0.25
        return replace(
            self,
            dropout=dropout,
            small_images=self.small_images and of_torchvision,
            weights_file=self.weights_file if of_torchvision else None,
            sync_batch_norm=self.sync_batch_norm and self.model not in _WITHOUT_BATCH_NORM,
        )


OF_SOME_MODELS = ("dropout", "small_images", "weights_file", "sync_batch_norm")
"""Settings that not every model takes."""

"""Settings: the model. `MODELS` lists the built-in ones."""

from dataclasses import dataclass

from ssl_runner.settings import Real, Text, check, require_known, setting

MODELS = {"CNN": "ssl_runner.models.cnn:CNN", "AdaptiveCNN": "ssl_runner.models.cnn:AdaptiveCNN"}
"""The built-in models, each with its import path."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model.

    Raises:
        InputError: If a setting is out of its range.
    """

    model: Text = setting(
        "CNN",
        "model: a name, or an import path module:Class",
        column="model, by name or import path",
    )
    dropout: Real = setting(0.25, "dropout before the last layer", least=0, below=1)

    def __post_init__(self) -> None:
        require_known("model", self.model, MODELS)
        check(self)

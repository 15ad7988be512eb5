"""A trained model as one file without pickle: its weights, and all that inference needs beside them."""

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from ssl_runner.errors import DataError, InputError, did_you_mean
from ssl_runner.models import build_model
from ssl_runner.models.settings import ModelSettings
from ssl_runner.object_store import above, check_reachable, join
from ssl_runner.results.folder import MODEL
from ssl_runner.settings import is_import_path
from ssl_runner.storage import list_files, open_folder, read_whole

# B = images, C = channels, H and W = height and width, K = classes

FORMAT = 1
"""Version of the metadata, in a file's `ssl_runner` key."""

_TRIAL_ID = re.compile(r"[0-9a-f]{10}")


@dataclass(frozen=True)
class ModelCard:
    """What a file of weights says of them.

    Attributes:
        network: The model's settings, by their flat names.
        image_shape: Channels, height and width of the images it takes, (C, H, W).
        class_names: Names of the classes, K of them, in the order of the logits.
        scale: What a pixel of 0 to 255 is divided by before the model sees it.
        precision: `fp32`, `bf16` (autocast) or `fp64`, as it was trained and evaluated.
        sweep, trial_id: The row it belongs to.
        dataset, data_digest: What it was trained on.
        sources: The user's own code at that time, as in the row.
        versions: Of ssl_runner, Python and PyTorch.
    """

    network: dict[str, Any]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    scale: float
    precision: str
    sweep: str
    trial_id: str
    dataset: str
    data_digest: str
    sources: str
    versions: dict[str, str]

    def to_text(self) -> str:
        """The card as JSON."""
        return json.dumps({"format": FORMAT} | dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "ModelCard":
        """The inverse of `to_text`. Raises ValueError or TypeError for any other text."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError("another format")
        for name in ("image_shape", "class_names"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


@dataclass(frozen=True)
class SavedModel:
    """A model to take home.

    Attributes:
        module: The model in evaluation mode, its weights in channels-last format. It takes float images
            in [0, 1], (B, C, H, W), and gives logits, (B, K).
        card: What else is known of it.
    """

    module: nn.Module
    card: ModelCard

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.card.class_names


def model_file(weights: dict[str, torch.Tensor], card: ModelCard) -> bytes:
    """The content of a model's file."""
    # In the usual format whatever the training had; a tensor that two names share is written twice.
    plain = {name: weight.detach().clone().contiguous() for name, weight in weights.items()}
    content: bytes = save(plain, metadata={"ssl_runner": card.to_text()})
    return content


def load_model(model: str | Path, *, results: str = "results", trust_code: bool = False) -> SavedModel:
    """A model that a sweep saved, ready to answer.

    Args:
        model: Its file, `results/models/….safetensors` or a URI; or the id of its trial.
        results: The results folder that a trial's id is looked up in.
        trust_code: Whether a model of the user's own may be imported. Its file names the module, and
            a file must not decide by itself which code is run.

    Raises:
        InputError: If there is no such file, it is not a model's, or it needs code that is not trusted.
    """
    location = str(model)
    if _TRIAL_ID.fullmatch(location):
        location = _file_of_trial(location, results)
    weights, card = _read(location)
    if is_import_path(card.network["model"]) and not trust_code:
        raise InputError(
            f"{location}: needs the code {card.network['model']!r}. If you trust it, allow it: "
            "--trust-code, or load_model(…, trust_code=True)."
        )
    channels, *size = card.image_shape
    settings = ModelSettings(**card.network | {"weights_file": None})  # it only began from there
    module = build_model(settings, channels, (size[0], size[1]), len(card.class_names))
    module.to(torch.float64 if card.precision == "fp64" else torch.float32)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{location}: its weights do not fit {settings.model} ({reason}). Load it with the release "
            f"that saved it, {card.versions.get('version')}, and the code of that time."
        ) from None
    module.to(memory_format=torch.channels_last)
    return SavedModel(module.eval(), card)


def results_of(model: str) -> str | None:
    """The results folder that a model's file lies in; None if it lies elsewhere, or is a trial's id."""
    results, models = above(above(model)[0])
    return (results or ".") if models == "models" else None


def _file_of_trial(trial_id: str, results: str) -> str:
    models = join(results, "models")
    check_reachable(models)
    filesystem, root = open_folder(models)
    names = list_files(filesystem, root, MODEL)
    found = [name for name in names if name.removesuffix(MODEL).endswith(f"--{trial_id}")]
    if not found:
        ids = [name.removesuffix(MODEL).rpartition("--")[2] for name in names]
        hint = did_you_mean(trial_id, ids) if ids else "Run ssl_runner.tune first, without --save none."
        raise InputError(f"the model must be of a trial in {models}, got {trial_id!r}. {hint}")
    return join(models, found[0])


def _read(location: str) -> tuple[dict[str, torch.Tensor], ModelCard]:
    """A file's weights and card.

    Raises:
        DataError: If it can't be read, or is not such a file.
    """
    check_reachable(location)
    filesystem, path = open_folder(location)
    try:
        content = read_whole(filesystem, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise DataError(f"{location}: can't be read ({reason}). Is the path right?") from None
    try:
        weights, text = _parsed(content)
    except SafetensorError as error:
        raise DataError(
            f"{location}: must be a whole .safetensors file ({error}). Cut short, damaged, or of "
            "another kind: name one of results/models."
        ) from None
    try:
        return weights, ModelCard.from_text(text or "null")
    except (ValueError, TypeError, KeyError):
        raise DataError(
            f"{location}: must be a model that ssl_runner saved (format {FORMAT}): its metadata are of "
            "another kind. Name one of results/models."
        ) from None


def _parsed(content: bytes) -> tuple[dict[str, torch.Tensor], str | None]:
    weights: dict[str, torch.Tensor] = load(content)
    size = int.from_bytes(content[:8], "little")  # of the JSON header, which has the metadata
    header = json.loads(content[8 : 8 + size])
    return weights, header.get("__metadata__", {}).get("ssl_runner")

"""A trained model asked about images, a part at a time: its logits, its features, its choice."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from ssl_runner.config import TrialConfig
from ssl_runner.datasets.decoded.mapped import was_read
from ssl_runner.errors import InputError
from ssl_runner.models import build_model
from ssl_runner.saved_model import ModelCard, SavedModel
from ssl_runner.selection import STRATEGIES, Choice, choose
from ssl_runner.selection.uncertainty import Measure
from ssl_runner.train import FitResult, TrialData
from ssl_runner.train.device import autocast, dtype_of, to_model_input
from ssl_runner.train.evaluation import EVALUATION_BATCH

# N = images, n = chosen images, B = images in a batch, C = channels, H and W = height and width,
# K = classes, D = features

_AT_ONCE = 64 * 2**20
"""Bytes of images that are gathered at a time."""

Advance = Callable[[int], None]
"""Called with the number of images that were done."""

CPU = torch.device("cpu")


def trained_model(config: TrialConfig, data: TrialData, result: FitResult) -> SavedModel:
    """A trial's model with the weights that it kept, ready to answer on the CPU; it belongs to no
    row."""
    channels, height, width = data.images_NCHW.shape[1:]
    card = ModelCard(
        network=vars(config.network),
        image_shape=(channels, height, width),
        class_names=data.classes,
        scale=255.0,
        precision=result.precision,
        sweep="",
        trial_id="",
        dataset="",
        data_digest="",
        sources="",
        versions={},
    )
    network = dataclasses.replace(config.resolved().network, weights_file=None)  # only began there
    module = build_model(network, channels, (height, width), len(data.classes))
    module.to(dtype_of(result.precision))
    module.load_state_dict(result.weights)
    return SavedModel(module.to(memory_format=torch.channels_last).eval(), card)


def in_full(model: SavedModel) -> SavedModel:
    """A model that answers in float32 where it was trained in bf16: its logits have eight bits, so
    that many images are equally uncertain, and the first of them would be chosen."""
    if model.card.precision != "bf16":
        return model
    return SavedModel(model.module, dataclasses.replace(model.card, precision="fp32"))


@torch.inference_mode()
def logits_of(
    saved: SavedModel, images_NCHW: np.ndarray, device: torch.device | None = None
) -> np.ndarray:
    """A model's logits, computed as in its own evaluation: the same batches, the same precision.

    Args:
        saved: The model, on the device.
        images_NCHW: uint8 images of the shape it takes; they may be a map of a file.
        device: Where it is; None: the CPU.

    Returns:
        float64, (N, K).
    """
    device = device or CPU
    parts = []
    for images_BCHW in _batches(images_NCHW, EVALUATION_BATCH[device.type]):
        made = to_model_input(
            torch.from_numpy(images_BCHW.copy()), device, dtype_of(saved.card.precision)
        )
        with autocast(saved.card.precision, device):
            logits_BK = saved.module(made)
        parts.append(logits_BK.to(torch.float64).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, len(saved.class_names)))


def _batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def parts_of(
    images_NCHW: np.ndarray, places_n: np.ndarray, device: torch.device = CPU
) -> Iterator[np.ndarray]:
    """Chosen images, some at a time, so that not all of them are in memory."""
    batch = EVALUATION_BATCH[device.type]  # whole batches: none differs from those without parts
    size = batch * max(1, _AT_ONCE // max(1, batch * images_NCHW[:1].nbytes))
    for start in range(0, len(places_n), size):
        places = places_n[start : start + size]
        yield images_NCHW[places]
        was_read(images_NCHW, len(places), scattered=True)


def answers_to(
    saved: SavedModel,
    images_NCHW: np.ndarray,
    places_n: np.ndarray,
    advance: Advance = lambda count: None,
    device: torch.device = CPU,
) -> np.ndarray:
    """A model's logits for chosen images, float64, (n, K)."""
    logits = [np.empty((0, len(saved.class_names)))]
    for images in parts_of(images_NCHW, places_n, device):
        logits.append(logits_of(saved, images, device))
        advance(len(images))
    return np.concatenate(logits)


def last_layer(module: nn.Module, name: str) -> nn.Linear:
    """The last linear layer of a model, whose input its features are.

    Raises:
        InputError: If the model, of that name, has none.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise InputError(
            "a strategy by features must have a model with a linear layer, whose input they are, got "
            f"{name!r}. Choose margin."
        )
    return layers[-1]


def features_of(
    saved: SavedModel,
    images_NCHW: np.ndarray,
    places_n: np.ndarray,
    advance: Advance = lambda count: None,
    device: torch.device = CPU,
) -> np.ndarray:
    """What the last linear layer of a model is given for chosen images, float32, (n, D).

    Raises:
        InputError: If the model has no such layer.
    """
    layer = last_layer(saved.module, saved.card.network["model"])
    seen: list[np.ndarray] = []

    def keep(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].flatten(1).float().cpu().numpy().copy())

    hook = layer.register_forward_pre_hook(keep)
    try:
        answers_to(saved, images_NCHW, places_n, advance, device)
    finally:
        hook.remove()
    return np.concatenate(seen)


def of_length_one(features_ND: np.ndarray) -> np.ndarray:
    """Features divided by their length (L2), as TypiClust takes them; zeros stay zeros."""
    length_N = np.linalg.norm(features_ND, axis=1, keepdims=True)
    divided: np.ndarray = features_ND / np.where(length_N > 0, length_N, 1)
    return divided


def choose_by_asking(
    models: Sequence[SavedModel],
    images_NCHW: np.ndarray,
    strategy: str,
    number: int,
    *,
    labeled: np.ndarray,
    candidates: np.ndarray,
    seed: int,
    measure: Measure = "bald",
    advance: Advance = lambda count: None,
    device: torch.device = CPU,
) -> Choice:
    """Choose images to label next, by what models answer in full precision. No label is looked at.

    Args:
        models: On the device: one, or several where the strategy takes them; none for `random`.
        images_NCHW: All training images, uint8; they may be a map of a file.
        strategy: A name of `STRATEGIES`.
        number: Images to choose, in [1, len(candidates)].
        labeled, candidates: The images that have a label, and those to choose from, rising.
        seed: Fixes what is random.
        measure: How disagreement is measured.
        advance: Called with the number of images that were asked about.
        device: Where the models are.

    Returns:
        The choice, in training images.

    Raises:
        InputError: If the strategy does not suit the models.
    """
    needs = STRATEGIES[strategy].needs
    models = [in_full(model) for model in models]
    if needs == "nothing":
        return choose(strategy, number, candidates=candidates, seed=seed)
    if needs == "features":
        # Only of images that are candidates or labeled, in the order of the training images.
        places = np.union1d(candidates, labeled)
        features = features_of(models[0], images_NCHW, places, advance, device)
        chosen = choose(
            strategy,
            number,
            features=of_length_one(features) if strategy == "typiclust" else features,
            labeled=np.searchsorted(places, labeled),
            candidates=np.searchsorted(places, candidates),
            seed=seed,
        )
        return Choice(places[chosen.indices], chosen.scores)
    from scipy.special import softmax  # slow to load, and few trials choose

    probabilities_MnK = np.stack(
        [
            softmax(answers_to(model, images_NCHW, candidates, advance, device), axis=1)
            for model in models
        ]
    )
    chosen = choose(strategy, number, probabilities=probabilities_MnK, seed=seed, measure=measure)
    return Choice(candidates[chosen.indices], chosen.scores)

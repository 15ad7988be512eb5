"""torchvision's classifiers by name, made to fit the data."""

from collections.abc import Mapping
from typing import Any

import torch
import torchvision.models
from torch import nn

from ssl_runner.errors import InputError, did_you_mean
from ssl_runner.models.settings import ModelSettings

# C = channels, H and W = height and width, K = classes


def build_vision_model(
    settings: ModelSettings, channels: int, size: tuple[int, int], classes: int
) -> nn.Module:
    """One of torchvision's classifiers, its weights drawn from torch's global generator.

    Raises:
        InputError: If there is no such model, or its file of weights does not fit.
    """
    model = _architecture(settings, channels, size, classes)
    if settings.weights_file is not None:
        fitting, _ = _fitting(model, settings.weights_file, settings.model)
        model.load_state_dict(fitting, strict=False)
    return model


def try_vision_model(
    settings: ModelSettings, channels: int, size: tuple[int, int], classes: int
) -> tuple[nn.Module, list[str]]:
    """The same without values in its weights, with one image passed through it.

    Returns:
        The model, and a line about the layers that do not start from its file of weights, if any.

    Raises:
        InputError: If there is no such model, or such images or its file of weights do not fit.
    """
    height, width = size
    try:
        try:
            with torch.device("meta"):
                model = _architecture(settings, channels, size, classes)
        except NotImplementedError:  # RegNets compute their widths with tensors
            model = _architecture(settings, channels, size, classes).to("meta")
        with torch.no_grad():
            model.eval()(torch.empty(1, channels, height, width, device="meta"))
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"images must be of a size that {settings.model} takes, got {height}×{width} ({reason}). "
            "Try another model, or larger images."
        ) from None
    if settings.weights_file is None:
        return model, []
    return model, _fitting(model, settings.weights_file, settings.model)[1]


def _architecture(
    settings: ModelSettings, channels: int, size: tuple[int, int], classes: int
) -> nn.Module:
    """The model for such images, its weights fresh."""
    name = settings.model.removeprefix("torchvision:")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        hint = did_you_mean(name, known).replace("mean ", "mean torchvision:")
        raise InputError(
            f"model must be one of torchvision's classifiers, got {settings.model!r}. {hint}"
        )
    arguments: dict[str, Any] = {"num_classes": classes}
    if name.startswith(("inception", "googlenet")):
        arguments |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit"):
        arguments["image_size"] = size[0]
    if name.startswith("maxvit"):
        arguments["input_size"] = size
    if settings.dropout is not None:
        arguments["drop_rate" if name.startswith("densenet") else "dropout"] = settings.dropout
    model: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
    path, first = _layers(model)[0]
    small: dict[str, Any] = {}
    if settings.small_images:
        small = {"kernel_size": 3, "stride": 1, "padding": 1}
        pool = "features.pool0" if name.startswith("densenet") else "maxpool"
        model.set_submodule(pool, nn.Identity())
    if small or channels != first.in_channels:
        model.set_submodule(path, _like(first, channels, **small))
    return model


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Its convolutions and linear layers in order, with their paths: the first one takes the images,
    the last one has an output for each class."""
    return [item for item in model.named_modules() if isinstance(item[1], nn.Conv2d | nn.Linear)]


def _like(convolution: nn.Conv2d, channels: int, **changes: Any) -> nn.Conv2d:
    """A convolution like another, but for the channels that it takes and any changes, with He's
    initial weights by fan-out."""
    names = ("kernel_size", "stride", "padding")
    arguments = {name: getattr(convolution, name) for name in names} | changes
    has_bias = convolution.bias is not None
    made = nn.Conv2d(channels, convolution.out_channels, **arguments, bias=has_bias)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def _fitting(model: nn.Module, file: str, name: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights of a file that fit a model, and a line about the layers that they do not fit.

    Only the first layer and the last one may be of another shape. For images of one channel the first
    layer's kernels are added up over the colors: the result is that of the image repeated in each.

    Raises:
        InputError: If it is not a state_dict of this model.
    """
    saved = _read(file)
    own = model.state_dict()
    saved = {key: value for key, value in saved.items() if key in own or not _is_auxiliary(key)}
    missing, unknown = [own.keys() - saved.keys(), saved.keys() - own.keys()]
    if missing or unknown:
        what = "lacks" if missing else "also has"
        differing = sorted(missing or unknown)
        some = ", ".join(differing[:3]) + (" …" if len(differing) > 3 else "")
        raise InputError(
            f"weights_file must be a state_dict of {name}, got {file!r}, which {what} "
            f"{some} ({len(differing)} in all). Is it of another model?"
        )
    layers = _layers(model)
    (first, _), (last, _) = layers[0], layers[-1]
    fitting, fresh = {}, []
    for key, value in saved.items():
        shape = own[key].shape
        if key == f"{first}.weight" and shape == (len(value), 1, *value.shape[2:]):
            value = value.sum(1, keepdim=True)
        if value.shape == shape:
            fitting[key] = value
        elif key.rpartition(".")[0] in (first, last):
            fresh.append(f"{key} ({_shape(value)} there, {_shape(own[key])} here)")
        else:
            raise InputError(
                f"weights_file must fit {name}, got {file!r}, whose {key} has the shape "
                f"{_shape(value)}, not {_shape(own[key])}. Is it of another model, or image size?"
            )
    said = f"{name} starts from {file}, but for fresh {', '.join(fresh)}"
    return fitting, [said] if fresh else []


def _is_auxiliary(key: str) -> bool:
    """Whether a weight is of the second classifiers that GoogLeNet and Inception train with."""
    return key.lower().startswith(("aux1.", "aux2.", "auxlogits."))


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _read(file: str) -> Mapping[str, torch.Tensor]:
    """A file's state_dict.

    Raises:
        InputError: If there is none.
    """
    try:
        saved = torch.load(file, weights_only=True, map_location="cpu")
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception:  # unpickling anything but tensors can raise anything
        reason = "not a whole file of tensors alone"
    else:
        if isinstance(saved, dict) and all(isinstance(each, torch.Tensor) for each in saved.values()):
            return saved
        reason = "not a dictionary of tensors alone"
    raise InputError(
        f"weights_file must be a state_dict that torch.save wrote, got {file!r} ({reason}). "
        "Save model.state_dict()."
    )

"""Images of a data set on a page that opens from disk, each with what there is to say of it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from ssl_runner.datasets.picture import pixels_of

# C = channels, H and W = height and width


@dataclass(frozen=True)
class Picture:
    """An image of a data set as a page shows it: a data URI and a caption."""

    uri: str
    text: str


def picture(image_CHW: np.ndarray, text: str) -> Picture:
    """A uint8 image with a caption."""
    file = io.BytesIO()
    pixels_of(image_CHW).save(file, "PNG", optimize=True)
    return Picture(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", text)


def environment() -> Environment:
    """What reads the pages' templates: every value is escaped, and none may be missing."""
    return Environment(
        loader=PackageLoader("ssl_runner.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def time_now() -> str:
    """When a page is made, as it says so."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def render_pictures(title: str, lines: Sequence[str], pictures: Sequence[Picture]) -> str:
    """A page of images as HTML, with everything it needs inside.

    Args:
        title: Its heading.
        lines: What stands above the images, a paragraph each.
        pictures: The images.
    """
    template = environment().get_template("pictures.html")
    return template.render(title=title, lines=lines, pictures=pictures, made=time_now())

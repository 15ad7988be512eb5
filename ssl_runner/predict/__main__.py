"""The command that asks saved models about images."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_runner.command import Parser, add_file_flags, check_free, run_main, write_output
from ssl_runner.config import FILE_FIELDS
from ssl_runner.datasets.settings import FileSettings, is_path
from ssl_runner.errors import InputError, shown
from ssl_runner.study import sweep_from_settings

if TYPE_CHECKING:
    import torch

    from ssl_runner.predict.calibrating import Calibrated
    from ssl_runner.predict.images import Images, Wish
    from ssl_runner.saved_model import SavedModel

OF_THE_MODEL = ("image_size", "channels")
"""What of the images' files the model decides."""


def main() -> int:
    """Write what saved models say of images: class, confidence and all probabilities of each."""
    options = _parser().parse_known(sys.argv[1:])

    from ssl_runner.predict.answering import write_answers
    from ssl_runner.predict.asking import check_alike
    from ssl_runner.predict.images import Wish
    from ssl_runner.predict.output import check_suffix
    from ssl_runner.predict.tables import print_calibration, print_judgement
    from ssl_runner.predict.trained_on import Rows
    from ssl_runner.report.terminal import wide_console
    from ssl_runner.saved_model import load_model

    files = _files(options)
    check_suffix(options.output)
    check_free(options.output, options.force)
    if options.page:
        check_free(options.page, options.force, "--page")
    device = _device(options.device)
    folders = [options.results or _folder_of(model) for model in options.models]
    models = [
        load_model(model, results=folder, trust_code=options.trust_code)
        for model, folder in zip(options.models, folders, strict=True)
    ]
    check_alike(models, options.models)
    for saved in models:
        saved.module.to(device)
    card = models[0].card
    wish = Wish(
        shape=card.image_shape,
        fit=files.fit,
        max_pixels=files.max_pixels,
        max_bad=files.max_bad_images,
        strict=options.strict,
    )
    images = _find(options, options.images, options.part, models, folders, files)
    if options.part == "test" or (options.part is None and not is_path(options.images)):
        for line in Rows(folders).tested_on_fewer(models):
            _say(line)
    console = wide_console()
    calibrated = _calibrated(options, models, folders, files, wish, device)
    if calibrated:
        print_calibration(calibrated, console)
    temperatures = [one.temperature for one in calibrated] or None
    written = write_answers(models, images, wish, options.output, device, _say, temperatures)
    if written.judgement is not None:
        print_judgement(written.judgement, written.before, card.class_names, console)
    print(f"{options.output}: answers on {written.images:,} images")
    if options.page:
        from ssl_runner.report.answers_page import answers_page

        asked_of = f"{', '.join(options.models)} on {images.name}"
        html = answers_page(asked_of, card.class_names, written, calibrated)
        write_output(options.page, html.encode(), "--page")
        print(f"{options.page}: the page")
    return 0


def _parser() -> Parser:
    parser = Parser(
        allow_abbrev=False,
        prog="python -m ssl_runner.predict",
        description=main.__doc__,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="files of results/models, or ids of trials; several answer together, by the mean of their "
        "probabilities",
    )
    parser.add_argument(
        "images",
        metavar="IMAGES",
        help="an image file, a folder, a table of files, Parquet files with images, or a data set by "
        "name or import path; after all models",
    )
    parser.add_argument(
        "--part",
        choices=("train", "validation", "test", "labeled", "unlabeled"),
        help="which of the images (default: all; of a data set by name: test)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("predictions.parquet"), help=".parquet or .csv"
    )
    parser.add_argument("--page", type=Path, help="write an HTML page with the reliability diagram")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse images of another size than the model takes, or coloured where it takes gray",
    )
    parser.add_argument("--ignore-labels", action="store_true", help="take all images as unlabeled")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit a temperature on the images that the model was validated on, and use it",
    )
    parser.add_argument(
        "--calibrate-on", metavar="IMAGES", help="fit it on these labeled images instead"
    )
    parser.add_argument(
        "--results", help="results folder of a trial's id and its row (default: the model file's own)"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of a named data set's files")
    parser.add_argument(
        "--trust-code", action="store_true", help="import the module that a model of your own names"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute")
    add_file_flags(parser)
    return parser


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _files(options: argparse.Namespace) -> FileSettings:
    given: dict[str, Any] = {key: value for key, value in vars(options).items() if key in FILE_FIELDS}
    for name in OF_THE_MODEL:
        if name in given:
            raise InputError(
                f"{name} must be left out, since the model decides, got {shown(given[name])}. Leave "
                f"out --{name.replace('_', '-')}."
            )
    return sweep_from_settings(given).files


def _device(name: str) -> "torch.device":
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device must be one that is there, got 'cuda'. Try cpu.")
    return torch.device(name)


def _folder_of(model: str) -> str:
    """The results folder that a model's file lies in; of a trial's id, the usual one."""
    from ssl_runner.saved_model import results_of

    return results_of(model) or "results"


def _find(
    options: argparse.Namespace,
    name: str,
    part: Any,
    models: "list[SavedModel]",
    folders: list[str],
    files: FileSettings,
    ignore_labels: bool | None = None,
) -> "Images":
    from ssl_runner.predict.finding import find_images
    from ssl_runner.predict.trained_on import Rows

    return find_images(
        name,
        part,
        models[0].class_names,
        files,
        trials=lambda dataset: Rows(folders).trials(models, dataset),
        say=_say,
        data_dir=options.data_dir,
        ignore_labels=options.ignore_labels if ignore_labels is None else ignore_labels,
    )


def _calibrated(
    options: argparse.Namespace,
    models: "list[SavedModel]",
    folders: list[str],
    files: FileSettings,
    wish: "Wish",
    device: "torch.device",
) -> "list[Calibrated]":
    """Each model's temperature; empty: none is asked for."""
    import numpy as np

    from ssl_runner.asking import logits_of
    from ssl_runner.predict.asking import ask
    from ssl_runner.predict.calibrating import calibrate
    from ssl_runner.predict.trained_on import Rows

    ids = [saved.card.trial_id for saved in models]
    if options.calibrate_on is not None:
        images = _find(options, options.calibrate_on, None, models, folders, files, False)
        blocks = list(ask(models, images, wish, device, _say))
        labels_n = np.concatenate([asked.labels_b for asked in blocks])
        known = labels_n >= 0
        if not known.any():
            raise InputError(
                f"{images.name}: --calibrate-on must name labeled images, got none. Name others."
            )
        return [
            calibrate(
                ids[m],
                f"{known.sum():,} of {images.name}",
                np.concatenate([asked.logits_MbK[m] for asked in blocks])[known],
                labels_n[known],
            )
            for m in range(len(models))
        ]
    if not options.calibrate:
        return []
    calibrated = []
    found = Rows(folders).validations(models, options.data_dir, options.trust_code)
    for trial_id, saved, validation in zip(ids, models, found, strict=True):
        what = f"{len(validation.labels):,} validation images"
        if validation.is_test:
            what += " (the test images)"
            _say(
                f"warning: trial {trial_id} was validated on the test images, so figures on them are "
                "of the images that its temperature was fitted on. Training with --holdout keeps them "
                "apart."
            )
        logits_nK = logits_of(saved, validation.images, device)
        calibrated.append(calibrate(trial_id, what, logits_nK, validation.labels))
    return calibrated


if __name__ == "__main__":
    run_main(main)

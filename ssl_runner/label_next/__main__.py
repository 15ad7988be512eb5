"""The command that says which images to label next, joins the labels, and finds mislabeled images."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_runner.command import (
    Parser,
    add_file_flags,
    add_setting_flags,
    check_free,
    run_main,
    write_output,
)
from ssl_runner.config import FIELDS, FILE_FIELDS, TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.settings import rule_of
from ssl_runner.study import sweep_from_settings

if TYPE_CHECKING:
    from ssl_runner.datasets.settings import FileSettings

OF_SUSPECTS = (
    *("model", "dropout", "small_images", "epochs", "max_steps", "patience", "batch_size"),
    *("optimizer", "lr", "weight_decay", "augment", "precision"),
)
"""The settings of the models that `--suspect` trains."""


def main() -> int:
    """Which images to label next: a table to fill in, the most wanted first, and a page with them.
    --merge joins the filled-in table with the labels that there are; --suspect finds labeled images
    whose label models contradict that were trained without them."""
    options = _parser().parse_known(sys.argv[1:])
    given = {key: value for key, value in vars(options).items() if key in FILE_FIELDS}
    settings = {key: value for key, value in vars(options).items() if key in OF_SUSPECTS}
    files = sweep_from_settings(given).files
    if options.suspect and options.merge is not None:
        raise InputError("--suspect and --merge must not stand together. Leave one of them out.")
    if settings and not options.suspect:
        name = next(iter(settings)).replace("_", "-")
        raise InputError(f"--{name} must be left out without --suspect, which alone trains models.")
    if options.merge is not None:
        return _merge(options, files, given)
    options.output = options.output or Path("suspects.csv" if options.suspect else "to_label.csv")
    options.page = options.page or options.output.with_suffix(".html")
    check_free(options.output, options.force)
    check_free(options.page, options.force, "--page")
    if options.suspect:
        return _suspect(options, files, given, settings)
    return _ask(options, files, given)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m ssl_runner.label_next",
        description=main.__doc__,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    parser.add_argument("models", nargs="*", help="files of results/models, or ids of trials")
    whose = rule_of(FIELDS["dataset"]).help
    parser.add_argument("--dataset", "--images", default="fashion_mnist", help=whose)
    parser.add_argument("--data-dir", type=Path, help="folder of its files (or SSL_RUNNER_DATA)")
    parser.add_argument("--results", default="results", help="results folder of a trial's id")
    parser.add_argument(
        "--trust-code", action="store_true", help="import the module that a model of your own names"
    )
    parser.add_argument(
        "--strategy",
        default="margin",
        help="least_confidence, margin (default), entropy, disagreement, coreset, typiclust or random",
    )
    parser.add_argument(
        "--measure",
        default="bald",
        choices=("bald", "vote_entropy"),
        help="how disagreement is measured (default: bald)",
    )
    parser.add_argument(
        "--number", type=int, help="images to choose (default: 500), or suspects to list (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="fixes what is random (default: 0)")
    parser.add_argument(
        "--merge", type=Path, metavar="TABLE", help="join this filled-in table with the known labels"
    )
    parser.add_argument(
        "--replace", action="store_true", help="its labels replace known ones: corrections"
    )
    parser.add_argument("--suspect", action="store_true", help="find labels that models contradict")
    parser.add_argument(
        "--folds", type=int, default=5, help="models that --suspect trains (default: 5)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the table (default: to_label.csv, or suspects.csv; --merge needs it)",
    )
    parser.add_argument("--page", type=Path, help="the page (default: beside the table, as .html)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    add_setting_flags(parser, "the models that --suspect trains", OF_SUSPECTS)
    add_file_flags(parser)
    return parser


def _ask(options: argparse.Namespace, files: "FileSettings", given: dict[str, Any]) -> int:
    """Choose images to label next."""
    from ssl_runner.label_next.asking import Question, ask, check_candidates, check_question
    from ssl_runner.label_next.material import check_fits, known_labels, load_material, load_models
    from ssl_runner.label_next.next_command import merge_command
    from ssl_runner.label_next.tables import ON_PAGE, pictures_to_label, to_label
    from ssl_runner.report.pictures import render_pictures
    from ssl_runner.selection import STRATEGIES

    number = 500 if options.number is None else options.number
    question = Question(options.strategy, number, options.seed, options.measure)
    check_question(question, len(options.models))
    asked = load_models(options.models, options.results, options.trust_code)
    material = load_material(options.dataset, options.data_dir, files, print)
    check_fits(asked, material.dataset)
    known = known_labels(material.dataset, asked)
    check_candidates(question, known, material.dataset.name)
    models = [model.saved for model in asked]
    choice, answers = ask(models, material.dataset.train.images, known, question)
    meaning = f"{question.strategy}: {STRATEGIES[question.strategy].score}"
    classes = ", ".join(material.dataset.train.class_names)
    what = f"{number:,} of {len(known.candidates):,} images of {material.dataset.name} to label next"
    lines = [
        f"The most wanted first. The score is that of {meaning}.",
        f"{len(known.labeled):,} training images have a label. The classes: {classes}.",
        f"All of them, to be filled in: {options.output.name}.",
    ]
    page = render_pictures(what, lines, pictures_to_label(material, choice, answers))
    write_output(options.output, to_label(material, choice, answers))
    write_output(options.page, page.encode(), "--page")
    print(f"{options.output}: {what}, the most wanted first ({meaning})")
    print(f"{options.page}: the first {min(number, ON_PAGE)} of them")
    if not material.can_merge:
        print(f"Write their labels into the column of {material.dataset.name} itself ({classes}).")
        return 0
    print(f"Fill in the column label with classes ({classes}), then:")
    flags = _flags(options, given)
    print(f"  {merge_command(options.models, options.dataset, flags, options.output, replace=False)}")
    return 0


def _suspect(
    options: argparse.Namespace,
    files: "FileSettings",
    given: dict[str, Any],
    settings: dict[str, Any],
) -> int:
    """Find labeled images whose label is contradicted."""
    import numpy as np

    from ssl_runner.label_next.material import load_material
    from ssl_runner.label_next.next_command import merge_command
    from ssl_runner.label_next.suspecting import out_of_fold
    from ssl_runner.label_next.tables import ON_PAGE, pictures_of_suspects, suspected
    from ssl_runner.report.pictures import render_pictures
    from ssl_runner.selection import Choice, suspects

    if options.models:
        raise InputError(
            f"--suspect must have no model, got {options.models[0]!r}: it trains its own, each without "
            "the images that it judges."
        )
    if options.number is not None and options.number < 1:
        raise InputError(f"--number must be at least 1, got {options.number}. Leave it out for all.")
    config = _config(settings, options.seed)
    material = load_material(options.dataset, options.data_dir, files, print)
    train, name = material.dataset.train, material.dataset.name
    labeled, probabilities_nK = out_of_fold(config, material.dataset, options.folds, print)
    found = suspects(train.labels[labeled], probabilities_nK)
    first = slice(options.number)
    suggested_n = np.argmax(probabilities_nK[found.indices], axis=1)[first]
    choice = Choice(labeled[found.indices][first], found.scores[first])
    what = f"{len(found.indices):,} of {len(labeled):,} labels of {name} are suspect"
    lines = [
        "The most contradicted first. The score is how much likelier another class is than the label, "
        f"by a model trained without the image ({options.folds} folds).",
        f"To be looked at and, where the label is wrong, corrected: {options.output.name}.",
    ]
    page = render_pictures(what, lines, pictures_of_suspects(material, choice, suggested_n))
    write_output(options.output, suspected(material, choice, suggested_n))
    write_output(options.page, page.encode(), "--page")
    print(f"{options.output}: {what}; {len(choice.indices):,} listed, the most contradicted first")
    print(f"{options.page}: the first {min(len(choice.indices), ON_PAGE)} of them")
    if not material.can_merge:
        print(f"Where a label is wrong, correct it in {name} itself.")
        return 0
    print("Where a label is wrong, fill in the right one in the column label, then:")
    print(
        f"  {merge_command((), options.dataset, _flags(options, given), options.output, replace=True)}"
    )
    return 0


def _merge(options: argparse.Namespace, files: "FileSettings", given: dict[str, Any]) -> int:
    """Join a filled-in table with the known labels."""
    from ssl_runner.label_next.material import check_fits, known_labels, load_material, load_models
    from ssl_runner.label_next.merging import merge
    from ssl_runner.label_next.next_command import study_command
    from ssl_runner.label_next.tables import labels_table

    if options.output is None:
        raise InputError("--output must name the new table of labels, got none. Try labels2.csv.")
    check_free(options.output, options.force)
    asked = load_models(options.models, options.results, options.trust_code)
    material = load_material(options.dataset, options.data_dir, files, print)
    check_fits(asked, material.dataset)
    known = known_labels(material.dataset, asked)
    merged = merge(material, known, options.merge, options.replace)
    write_output(options.output, labels_table(material, merged.known))
    train = material.dataset.train
    changed = f", {merged.changed:,} changed" if merged.changed else ""
    print(
        f"{options.output}: {merged.added:,} labels added{changed}; {len(merged.known.labeled):,} of "
        f"{len(train):,} training images have one now. The study with them:"
    )
    flags = _flags(options, given)
    print(f"  {study_command(options.dataset, flags, material, options.output)}")
    return 0


def _flags(options: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """The flags that say where data and results are, by name, where they were given."""
    places: dict[str, Any] = {}
    if options.results != "results" and options.models:
        places["results"] = options.results
    if options.data_dir is not None:
        places["data_dir"] = options.data_dir
    return places | given


def _config(settings: dict[str, Any], seed: int) -> TrialConfig:
    """How the models of `--suspect` are trained.

    Raises:
        InputError: If a setting is invalid.
    """
    listed = {"configs": ["full"], "seeds": [seed]}
    if "model" in settings:
        listed["models"] = [settings["model"]]
    rest = {name: value for name, value in settings.items() if name != "model"}
    (config,) = sweep_from_settings(listed | rest).trials()
    return config


if __name__ == "__main__":
    run_main(main)

"""The command that compares the trials of a results folder."""

import sys
from pathlib import Path

from ssl_runner.command import Parser, run_main
from ssl_runner.errors import InputError
from ssl_runner.report.terminal import (
    print_as,
    print_best,
    print_extrapolation,
    print_needed,
    watch,
    wide_console,
)


def main() -> int:
    """Compare the trials of a results folder: printed, as a page, as pictures."""
    parser = Parser(allow_abbrev=False, prog="python -m ssl_runner.report", description=main.__doc__)
    parser.add_argument("results", nargs="?", default="results", help="folder or URI of the results")
    parser.add_argument("--sweep", help="only this sweep; without it, all")
    parser.add_argument(
        "--baseline",
        help="reference of the differences: full, a method or a selection; without it, full, pass, and "
        "random among several selections",
    )
    parser.add_argument(
        "--format", default="table", choices=("table", "csv", "markdown"), help="output format"
    )
    parser.add_argument(
        "--best",
        type=int,
        help="print the so many best trials, by validation, with the command that runs each again",
    )
    parser.add_argument(
        "--target",
        type=float,
        help="labels needed for this test accuracy, such as 0.90: measured between rounds, and what "
        "each selection saves; else extrapolated",
    )
    parser.add_argument("--labels", type=int, help="extrapolate: test accuracy at so many labels")
    parser.add_argument("--method", default="pass", help="method whose label curve is extrapolated")
    parser.add_argument(
        "--all-versions",
        action="store_true",
        help="also compare the trials of older data and source code, each separately",
    )
    parser.add_argument("--watch", action="store_true", help="follow a sweep until it ends")
    parser.add_argument("--page", type=Path, help="write the page to this HTML file")
    parser.add_argument("--figures", type=Path, help="write every chart to this folder, SVG and PNG")
    parser.add_argument(
        "--svg", type=Path, help="also write the printed output to this file, as a picture"
    )
    options = parser.parse_known(sys.argv[1:])
    from ssl_runner.results import ResultsFolder, newest
    from ssl_runner.storage import is_local

    results = ResultsFolder(options.results)
    results.check_reachable()
    if options.watch:
        # A cloud is asked for every row each time.
        watch(results, options.sweep, wide_console(), 1.0 if is_local(results.filesystem) else 5.0)
    trials = results.trials(options.sweep)
    if trials.empty:
        raise InputError(
            f"there must be a finished trial to compare, got none in {options.results!r}"
            f"{f' of sweep {options.sweep!r}' if options.sweep else ''}. Run ssl_runner.tune first."
        )
    if not options.all_versions:
        count, trials = len(trials), newest(trials)
        if older := count - len(trials):
            print(
                f"{older} of {count} trials are left out: their data or source code has changed since "
                "(--all-versions shows them)",
                file=sys.stderr,
            )
    console = wide_console(record=options.svg is not None)
    if options.best is not None:
        print_best(options.format, trials, options.best, console)
    else:
        print_as(options.format, trials, console, options.baseline)
    if options.target is not None and trials["selection"].notna().any():
        print_needed(trials, options.target, console)
        options.target = None
    if options.target is not None or options.labels is not None:
        print_extrapolation(trials, options.method, options.target, options.labels, console)
    try:
        if options.svg:
            flag = "--svg"
            console.save_svg(str(options.svg), title="python -m ssl_runner.report")
        if options.page or options.figures:
            from ssl_runner.report.page import find_dataset, render_page, save_figures

            epochs = results.epochs(options.sweep)
            if options.page:
                flag = "--page"
                html = render_page(trials, epochs, find_dataset(trials), options.baseline)
                options.page.write_text(html, encoding="utf-8")
            if options.figures:
                flag = "--figures"
                save_figures(trials, epochs, options.figures)
    except OSError as error:
        place = getattr(options, flag.removeprefix("--"))
        raise InputError(
            f"{flag} must be a writable path, got {str(place)!r} ({error.strerror}). Choose another."
        ) from None
    return 0


if __name__ == "__main__":
    run_main(main)

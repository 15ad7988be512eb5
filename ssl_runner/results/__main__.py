"""The command that keeps a results folder in order."""

import sys

from ssl_runner.command import Parser, run_main


def main() -> int:
    """Make a few large files of a folder's many small ones; its rows stay as they are."""
    parser = Parser(allow_abbrev=False, prog="python -m ssl_runner.results", description=main.__doc__)
    parser.add_argument("action", choices=["compact"], help="make a few large files of many small ones")
    parser.add_argument("results", nargs="?", default="results", help="folder of the results")
    options = parser.parse_known(sys.argv[1:])
    from ssl_runner.errors import InputError
    from ssl_runner.results.folder import ResultsFolder

    results = ResultsFolder(options.results)
    compacted = results.compact()
    if not compacted:
        raise InputError(
            f"{options.results!r} must be a folder of results, got one without trials/. "
            "It is the folder that --results names."
        )
    for name, done in compacted.items():
        print(f"{results.place(name)}: {done.before:,} files before, {done.after:,} now")
    return 0


if __name__ == "__main__":
    run_main(main)

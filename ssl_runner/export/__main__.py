"""The command that writes a saved model for other programs."""

import sys
from pathlib import Path

from ssl_runner.command import Parser, check_free, run_main, write_output
from ssl_runner.errors import InputError


def main() -> int:
    """Write a saved model for other programs: uint8 images in, logits out."""
    parser = Parser(allow_abbrev=False, prog="python -m ssl_runner.export", description=main.__doc__)
    parser.add_argument("model", help="a file of results/models, or a trial's id")
    parser.add_argument("--results", default="results", help="results folder of a trial's id")
    parser.add_argument(
        "--format", default="torch", choices=("torch", "onnx"), help="torch.export, or ONNX"
    )
    parser.add_argument("--output", type=Path, help="where to (default: the model's name, here)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--trust-code", action="store_true", help="import the module that a model of your own names"
    )
    options = parser.parse_known(sys.argv[1:])
    from ssl_runner.export.exporting import SUFFIXES, exported
    from ssl_runner.saved_model import load_model

    saved = load_model(options.model, results=options.results, trust_code=options.trust_code)
    suffix = SUFFIXES[options.format]
    output = options.output or Path(f"{saved.card.sweep}--{saved.card.trial_id}{suffix}")
    if output.suffix != suffix:
        raise InputError(f"--output must end in {suffix}, got {str(output)!r}. Try model{suffix}.")
    check_free(output, options.force)
    write_output(output, exported(saved, options.format))
    channels, height, width = saved.card.image_shape
    print(
        f"{output}: uint8 images (B, {channels}, {height}, {width}) to logits (B, "
        f"{len(saved.class_names)}), classes {', '.join(saved.class_names)}"
    )
    return 0


if __name__ == "__main__":
    run_main(main)

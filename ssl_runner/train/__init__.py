"""Training in plain PyTorch, without Ray. `python -m ssl_runner.train` runs one trial.

`data` chooses a trial's images, `device` says how to compute, `ranks` what processes agree on,
`evaluation` measures, `step` learns from a step's batches, `loop` trains, `values` are its results.
"""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.train.data import TrialData as TrialData
    from ssl_runner.train.data import prepare as prepare
    from ssl_runner.train.evaluation import Evaluation as Evaluation
    from ssl_runner.train.evaluation import evaluate as evaluate
    from ssl_runner.train.loop import fit as fit
    from ssl_runner.train.values import FitResult as FitResult
    from ssl_runner.train.values import Rungs as Rungs
    from ssl_runner.train.values import Stopped as Stopped

__getattr__ = lazy_names(
    __name__,
    {
        "Evaluation": "evaluation",
        "FitResult": "values",
        "Rungs": "values",
        "Stopped": "values",
        "TrialData": "data",
        "evaluate": "evaluation",
        "fit": "loop",
        "prepare": "data",
    },
)

"""Training in plain PyTorch, without Ray. `python -m ssl_runner.train` runs one trial.

`data` chooses a trial's images, `device` says how to compute, `evaluation` measures, `step` learns from
a step's batches, `loop` trains, `values` are what comes of it.
"""

from ssl_runner.train.data import TrialData, prepare
from ssl_runner.train.evaluation import Evaluation, evaluate
from ssl_runner.train.loop import fit
from ssl_runner.train.values import FitResult

__all__ = ["Evaluation", "FitResult", "TrialData", "evaluate", "fit", "prepare"]

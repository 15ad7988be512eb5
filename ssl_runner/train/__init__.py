"""Training in plain PyTorch, without Ray. `python -m ssl_runner.train` runs one trial.

`data` chooses a trial's images, `device` says how to compute, `evaluation` measures, `loop` trains.
"""

from ssl_runner.train.data import TrialData, prepare
from ssl_runner.train.evaluation import Evaluation, evaluate
from ssl_runner.train.loop import FitResult, fit, train_epoch

__all__ = ["Evaluation", "FitResult", "TrialData", "evaluate", "fit", "prepare", "train_epoch"]

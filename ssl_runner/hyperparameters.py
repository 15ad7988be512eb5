"""Which method takes which hyper-parameter, and its default. Values only; nothing here needs torch."""

Value = float | int | bool

# λ is `unlabeled_weight`, τ is `threshold`, α is `ema`. The sources are in `methods`, at each class.
DEFAULTS: dict[str, dict[str, Value]] = {
    "pass": {"ema": 0.0},
    "pseudo_label": {
        "mu": 1,
        "unlabeled_weight": 1.0,
        "ramp": 0.4,
        "threshold": 0.95,
        "ema": 0.0,
    },
    "pi_model": {"mu": 1, "unlabeled_weight": 10.0, "ramp": 0.4, "ema": 0.0},
    "mean_teacher": {"mu": 1, "unlabeled_weight": 50.0, "ramp": 0.4, "ema": 0.99},
    "fixmatch": {
        "mu": 1,
        "unlabeled_weight": 1.0,
        "ramp": 0.0,
        "threshold": 0.95,
        "temperature": 0.0,
        "alignment": False,
        "momentum": 0.99,
        "ema": 0.99,
    },
    "freematch": {
        "mu": 1,
        "unlabeled_weight": 1.0,
        "ramp": 0.0,
        "temperature": 0.0,
        "alignment": True,
        "momentum": 0.99,
        "ema": 0.99,
    },
}

METHODS = tuple(DEFAULTS)

# A method of one's own, named by its import path, may use any of them.
OWN_DEFAULTS: dict[str, Value] = {
    "mu": 1,
    "unlabeled_weight": 1.0,
    "ramp": 0.0,
    "threshold": 0.95,
    "temperature": 0.0,
    "alignment": False,
    "momentum": 0.99,
    "ema": 0.0,
}

HYPERPARAMETERS = tuple(OWN_DEFAULTS)


def defaults(method: str) -> dict[str, Value]:
    """The hyper-parameters that a method takes, each with its default."""
    return DEFAULTS.get(method, OWN_DEFAULTS)

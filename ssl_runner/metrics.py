"""The metrics of a trial: one table, read by the loop, the columns, the reports and the loggers.

A new metric that is a mean over images is one line here, and a `sums.add` where it is measured.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A figure of an epoch, and of the trial's best one.

    Attributes:
        name: Its column in both tables; a validation metric's test counterpart has "test" instead.
        meaning: What it is, in a line.
        title: Its heading on charts; empty: it is not drawn.
        tag: Its name in TensorBoard.
        is_share: Whether it is a share, where more is better; otherwise it is a loss.
        mean_of: The two sums (`train.values.Sums`) whose quotient it is; None: it is evaluated.
        null: When it is null; empty: never.
    """

    name: str
    meaning: str
    title: str
    tag: str
    is_share: bool
    mean_of: tuple[str, str] | None = None
    null: str = ""


METRICS = (
    Metric(
        "train_loss",
        "mean cross entropy of the labeled images while training",
        "Training loss",
        "loss/train",
        is_share=False,
        mean_of=("loss", "images"),
    ),
    Metric(
        "train_accuracy",
        "share of the labeled images classified correctly while training",
        "Training accuracy",
        "accuracy/train",
        is_share=True,
        mean_of=("correct", "images"),
    ),
    Metric(
        "validation_loss",
        "mean cross entropy of the validation images",
        "Validation loss",
        "loss/validation",
        is_share=False,
    ),
    Metric(
        "validation_accuracy",
        "share of the validation images classified correctly",
        "Validation accuracy",
        "accuracy/validation",
        is_share=True,
    ),
    Metric(
        "validation_macro_accuracy",
        "mean over the classes of the share of their validation images classified correctly",
        "",
        "accuracy/validation_macro",
        is_share=True,
        null="recorded before version 4 of the columns",
    ),
    Metric(
        "student_validation_loss",
        "validation loss of the trained weights, where averaged ones (ema) are evaluated",
        "",
        "student/validation_loss",
        is_share=False,
        null="no averaged weights",
    ),
    Metric(
        "student_validation_accuracy",
        "validation accuracy of the trained weights; validation_… and test_… are of the averaged ones",
        "",
        "student/validation_accuracy",
        is_share=True,
        null="no averaged weights",
    ),
    Metric(
        "unlabeled_loss",
        "mean of the method's loss, unweighted",
        "Unlabeled loss",
        "loss/unlabeled",
        is_share=False,
        mean_of=("unlabeled_loss", "unlabeled"),
        null="the method has none",
    ),
    Metric(
        "confidence",
        "mean confidence of the method's targets",
        "Confidence of the targets",
        "pseudo_labels/confidence",
        is_share=True,
        mean_of=("confidence", "confident"),
        null="the method has none",
    ),
    Metric(
        "accepted_share",
        "share of the unlabeled images whose pseudo-label was accepted",
        "Share of pseudo-labels accepted",
        "pseudo_labels/accepted_share",
        is_share=True,
        mean_of=("accepted", "judged"),
        null="the method has none",
    ),
    Metric(
        "pseudo_accuracy",
        "share of the accepted pseudo-labels that are correct, by labels the method never saw",
        "Accuracy of the accepted",
        "pseudo_labels/accuracy",
        is_share=True,
        mean_of=("right", "known"),
        null="the method has none, or no label is known",
    ),
)

AT_A_RUNG = ("validation_loss", "validation_accuracy")
"""What is measured where a scheduler may stop a trial."""

COMPARED = {
    "train_loss": "train loss",
    "train_accuracy": "train acc",
    "validation_loss": "val loss",
    "validation_accuracy": "val acc",
    "test_loss": "test loss",
    "test_accuracy": "test acc",
    "test_macro_accuracy": "macro acc",
}
"""What a comparison shows, with its headings. Accuracies are shares, where more is better."""


def is_share(name: str) -> bool:
    """Whether a compared metric is a share, where more is better, or a loss."""
    of_validation = name.replace("test_", "validation_")
    return next(metric.is_share for metric in METRICS if metric.name == of_validation)

"""The comparison as charts: data frames in, Vega-Lite out."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ssl_runner.metrics import METRICS
from ssl_runner.report import words

# Okabe and Ito's colors, which color-blind readers can tell apart, without black and yellow, which
# vanish on a dark or a light page; further configurations also get dashes.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2))

MOST_CURVES = len(COLORS) * len(DASHES)
"""Learning curves are drawn of at most so many configurations."""

WIDTH, HEIGHT = 380, 240

Spec = dict[str, Any]
"""A chart in Vega-Lite's own form."""


def colors_of(
    configurations: Sequence[str], legend: alt.Legend | None = None
) -> tuple[alt.Color, alt.StrokeDash]:
    """A color and a dash for each configuration, the same in every chart."""
    names = list(configurations)
    colors = [COLORS[i % len(COLORS)] for i in range(len(names))]
    dashes = [list(DASHES[i // len(COLORS) % len(DASHES)]) for i in range(len(names))]
    return (
        alt.Color("configuration:N", scale=alt.Scale(domain=names, range=colors), legend=legend),
        alt.StrokeDash("configuration:N", scale=alt.Scale(domain=names, range=dashes), legend=legend),
    )


def spec_of(chart: alt.LayerChart | alt.FacetChart) -> Spec:
    """A chart as Vega-Lite, its text in the page's own color, so that it fits a dark page too."""
    spec: Spec = chart.to_dict()
    text = {"labelColor": "currentColor", "titleColor": "currentColor"}
    spec["config"] = {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "axis": text | {"gridColor": "#8883", "domainColor": "#8886", "tickColor": "#8886"},
        "legend": text,
        "title": {"color": "currentColor", "anchor": "start", "fontSize": 14},
        "header": text,
        "view": {"stroke": "#8886"},
    }
    return spec


def learning_curves(epochs: pd.DataFrame, configurations: Sequence[str]) -> dict[str, Spec]:
    """Each figure over the epochs: a line per configuration, a band of ± one standard deviation.

    Args:
        epochs: Rows as in `results/epochs`, with a column `configuration`.
        configurations: Those to draw, in this order.

    Returns:
        A chart for each column with values; its parameter `shown` lists the visible configurations.
    """
    charts = {}
    for metric in METRICS:
        column, title, is_share = metric.name, metric.title, metric.is_share
        if not title:
            continue
        rows = epochs[epochs["configuration"].isin(configurations)].dropna(subset=column)
        if rows.empty:
            continue
        means = rows.groupby(["configuration", "epoch"])[column].agg(["mean", "std", "count"])
        means = means.reset_index().rename(columns={"count": "n"})
        spread = means["std"].fillna(0.0)
        means = means.assign(low=means["mean"] - spread, high=means["mean"] + spread)
        color, dash = colors_of(configurations)
        last = int(means["epoch"].max())
        ticks = list(range(1, last + 1, -(-last // 10)))
        axis = alt.Axis(values=ticks, format="d")
        shown = alt.param(name="shown", value=list(configurations))
        base = (
            alt.Chart(means.round(5), title=title)
            .transform_filter("indexof(shown, datum.configuration) >= 0")
            .encode(x=alt.X("epoch:Q", title="epoch", axis=axis), color=color)
        )
        form = ".1%" if is_share else ".3f"
        scale = alt.Scale(zero=False)
        levels = alt.Axis(format="%" if is_share else "")
        band = base.mark_area(opacity=0.18).encode(
            y=alt.Y("low:Q", title=None, scale=scale, axis=levels), y2="high:Q"
        )
        line = base.mark_line(point=alt.OverlayMarkDef(size=18)).encode(
            y=alt.Y("mean:Q", title=None, scale=scale, axis=levels),
            strokeDash=dash,
            tooltip=[
                "configuration:N",
                "epoch:Q",
                alt.Tooltip("mean:Q", format=form),
                alt.Tooltip("std:Q", format=form, title="standard deviation"),
                "n:Q",
            ],
        )
        layers = alt.layer(band, line).add_params(shown)
        charts[column] = spec_of(layers.properties(width=WIDTH, height=HEIGHT))
    return charts


def label_chart(curve: pd.DataFrame, full: float | None) -> Spec:
    """Test accuracy against labeled images on a log axis, with ± one standard deviation.

    Args:
        curve: From `results.label_curve`.
        full: Mean test accuracy with all labels, for a horizontal line; None: no line.
    """
    varying = [name for name in words.keys_of(curve) if curve[name].nunique(dropna=False) > 1]
    names = pd.Series([words.series(row, varying) for row in curve.to_dict("records")], dtype=str)
    spread = curve["test_accuracy_spread"].fillna(0.0)
    mean = curve["test_accuracy_mean"]
    points = curve.assign(configuration=names, low=mean - spread, high=mean + spread)
    legend = alt.Legend(title=None, orient="bottom", columns=3, labelLimit=300)
    color, dash = colors_of(list(dict.fromkeys(names)), legend)
    ticks = sorted(set(points["labeled_images"].tolist()))
    base = alt.Chart(points.round(6), title="Test accuracy by labeled images").encode(
        x=alt.X(
            "labeled_images:Q",
            scale=alt.Scale(type="log", nice=False, padding=20),
            axis=alt.Axis(values=ticks, format=",", labelOverlap="greedy", labelSeparation=6),
            title="labeled images",
        ),
        color=color,
    )
    y = alt.Y(
        "test_accuracy_mean:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(format="%")
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(
        y=y,
        strokeDash=dash,
        tooltip=[
            alt.Tooltip("configuration:N", title="method"),
            alt.Tooltip("labeled_images:Q", format=","),
            alt.Tooltip("test_accuracy_mean:Q", format=".2%", title="mean"),
            alt.Tooltip("test_accuracy_spread:Q", format=".2%", title="standard deviation"),
            "n:Q",
        ],
    )
    bars = base.mark_rule().encode(y=alt.Y("low:Q", title=None), y2="high:Q")
    layers = [bars, line]
    if full is not None:
        line_across = alt.Chart(pd.DataFrame({"full": [full]})).mark_rule(
            strokeDash=[2, 4], color="#888"
        )
        layers.append(line_across.encode(y=alt.Y("full:Q", title=None)))
    return spec_of(alt.layer(*layers).properties(width=2 * WIDTH, height=300))


def gain_chart(
    points: pd.DataFrame, methods: Sequence[str], title: str, is_log: bool, is_ratio: bool
) -> Spec:
    """Gain over `pass` along an axis: a line and intervals for each method, and a line at 0.

    Args:
        points: A row for each method and value: `configuration` (the method), `value`, and in points
            `mean`, `low` and `high` (NaN: no interval), `n`, and `accuracy` (a share).
        methods: In the order of their colors.
        title: Of the chart.
        is_log: Whether the axis is logarithmic.
        is_ratio: Whether its values are ratios; else they are shares.
    """
    legend = alt.Legend(title=None, orient="bottom")
    color, dash = colors_of(methods, legend)
    scale = alt.Scale(type="log" if is_log else "linear", nice=False, padding=20)
    ticks = sorted(set(points["value"].tolist()))
    form = "" if is_ratio else ".3~%"
    axis = alt.Axis(values=ticks, format=form, labelOverlap="greedy", labelSeparation=6)
    x = alt.X("value:Q", scale=scale, axis=axis, title="γ" if is_ratio else None)
    base = alt.Chart(points.round(6), title=title).encode(x=x, color=color)
    tooltip = [
        alt.Tooltip("configuration:N", title="method"),
        alt.Tooltip("value:Q", format=form),
        alt.Tooltip("mean:Q", format="+.2f", title="gain in points"),
        alt.Tooltip("low:Q", format="+.2f"),
        alt.Tooltip("high:Q", format="+.2f"),
        alt.Tooltip("accuracy:Q", format=".2%"),
        "n:Q",
    ]
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(
        y=alt.Y("mean:Q", title="gain over pass, points"), strokeDash=dash, tooltip=tooltip
    )
    known = base.transform_filter("isValid(datum.low)")
    bars = known.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q")
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(strokeDash=[2, 4], color="#888")
    layers = alt.layer(zero.encode(y="zero:Q"), bars, line)
    return spec_of(layers.properties(width=WIDTH, height=HEIGHT))


def _heat_map(rows: pd.DataFrame, x: str, y: str, value: str, title: str, form: str) -> Spec:
    """A number in each cell, on a color for its value."""
    columns, lines = list(dict.fromkeys(rows[x])), list(dict.fromkeys(rows[y]))
    base = alt.Chart(rows, title=title).encode(
        x=alt.X(f"{x}:N", sort=columns, title=x.replace("_", " "), axis=alt.Axis(labelAngle=-40)),
        y=alt.Y(f"{y}:N", sort=lines, title=None, axis=alt.Axis(labelLimit=260)),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(f"{value}:Q", scale=alt.Scale(scheme="viridis"), legend=None),
        tooltip=[f"{y}:N", f"{x}:N", alt.Tooltip(f"{value}:Q", format=form)],
    )
    middle = (rows[value].max() + rows[value].min()) / 2
    numbers = base.mark_text(fontSize=10).encode(
        text=alt.Text(f"{value}:Q", format=form),
        color=alt.condition(f"datum.{value} > {middle}", alt.value("#000"), alt.value("#fff")),
    )
    layers = alt.layer(cells, numbers)
    width, height = 52 * len(columns), 26 * len(lines)
    return spec_of(layers.properties(width=width, height=height))


def class_chart(done: pd.DataFrame, configurations: Sequence[str]) -> Spec:
    """Test accuracy of each class, averaged over the trials of each configuration.

    Args:
        done: Finished rows as in `results/trials`, of one data set, with `configuration`.
    """
    rows = []
    for name in configurations:
        of_one = done[done["configuration"] == name]
        each = pd.DataFrame(of_one["test_accuracy_per_class"].tolist()).mean()
        for label, share in zip(of_one["class_names"].iloc[0], each, strict=True):
            rows.append({"configuration": name, "class": label, "accuracy": round(100 * share, 2)})
    title = "Test accuracy by class, in %"
    return _heat_map(pd.DataFrame(rows), "class", "configuration", "accuracy", title, ".1f")


def reliability_chart(bins: pd.DataFrame) -> Spec:
    """A reliability diagram: accuracy beside mean confidence, bin by bin. On the diagonal, a model is
    as often right as it is sure.

    Args:
        bins: A row for each bin with images: `configuration`, `confidence`, `accuracy`, `images`.
    """
    legend = alt.Legend(title=None, orient="bottom")
    color, dash = colors_of(list(dict.fromkeys(bins["configuration"])), legend)
    scale = alt.Scale(domain=[0, 1])
    diagonal = alt.Chart(pd.DataFrame({"confidence": [0, 1], "accuracy": [0, 1]}), title="Reliability")
    x = alt.X("confidence:Q", title="mean confidence", scale=scale, axis=alt.Axis(format="%"))
    y = alt.Y("accuracy:Q", title="accuracy", scale=scale, axis=alt.Axis(format="%"))
    tooltip = [
        alt.Tooltip("configuration:N", title="answers"),
        *(alt.Tooltip(f"{name}:Q", format=".2%") for name in ("confidence", "accuracy")),
        alt.Tooltip("images:Q", format=","),
    ]
    shown = alt.Chart(bins.round(5)).encode(x=x, y=y, color=color, tooltip=tooltip)
    layers = alt.layer(
        diagonal.mark_line(color="#888", strokeDash=[2, 4]).encode(x=x, y=y),
        shown.mark_line().encode(strokeDash=dash),
        shown.mark_circle(opacity=0.8).encode(size=alt.Size("images:Q", legend=None)),
    )
    return spec_of(layers.properties(width=WIDTH, height=WIDTH))


def confusion_chart(names: Sequence[str], confusion: Sequence[Sequence[int]], title: str) -> Spec:
    """A confusion matrix.

    Args:
        names: Of the classes.
        confusion: Counts, true class by predicted class.
    """
    rows = [
        {"true_class": names[i], "predicted_class": names[j], "images": int(count)}
        for i, line in enumerate(confusion)
        for j, count in enumerate(line)
    ]
    return _heat_map(pd.DataFrame(rows), "predicted_class", "true_class", "images", title, ",")

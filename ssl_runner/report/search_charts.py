"""A search as charts: its samples over all settings and over each, the best so far, what decides."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ssl_runner.metrics import is_share
from ssl_runner.report import words
from ssl_runner.report.charts import COLORS, HEIGHT, MOST_CURVES, WIDTH, Spec, colors_of, spec_of
from ssl_runner.results.importance import Importance
from ssl_runner.results.search_history import Search, is_numeric

MOST_LINES = 200
"""At most so many samples of a search are drawn: the best fifth of that number, the others evenly
spread over the search."""

MOST_PARALLEL = 12
"""At most so many searches are drawn with all their settings side by side."""

MOST_SEARCHES = MOST_CURVES
"""The other charts are of at most so many searches: they can't be told apart by color beyond."""

_STOPPED = "#999"
_TICKS = 5
_AS_IT_IS = "'' + round(datum.value * 1e9) / 1e9"  # Vega's formats make 3e+1 of 32 where there are few


def drawn_samples(search: Search) -> pd.DataFrame:
    """The samples of a search that are drawn, by number: `MOST_LINES` at most, without failed ones.

    Returns:
        Its rows with a column `reached`: the objective, of stopped ones at their last step.
    """
    rows = search.samples.assign(reached=pd.to_numeric(search.samples[search.objective]))
    rows = rows[rows["reached"].map(math.isfinite) & (rows["status"] != "failed")]
    if len(rows) <= MOST_LINES:
        return pd.DataFrame(rows)
    finished = rows[rows["status"] == "finished"]
    by_value = finished.sort_values("reached", ascending=not is_share(search.objective), kind="stable")
    best = by_value.index[: MOST_LINES // 5]
    others = rows.index.difference(best)
    spread = np.linspace(0, len(others) - 1, MOST_LINES - len(best)).round().astype(int)
    return rows.loc[best.union(others[spread]).sort_values()]


def parallel_chart(search: Search) -> Spec:
    """Parallel coordinates: a line for each sample through its value on every searched setting's axis,
    in the color of the objective, which is the last axis. Stopped samples are dashed and gray.
    """
    objective, rows = search.objective, drawn_samples(search)
    title, over_magnitudes = words.objective(objective), _over_magnitudes([rows], objective)
    axes = [
        _axis(rows[each], each.replace("_", " "), search.is_log(each), is_choice=search.is_choice(each))
        for each in search.settings
    ]
    axes.append(_axis(rows["reached"], title, over_magnitudes, is_percent=is_share(objective)))
    names = [axis["name"] for axis in axes]
    wide = pd.DataFrame({axis["name"]: axis["places"] for axis in axes}).assign(
        sample=rows["sample"].astype(int).to_numpy(),
        reached=rows["reached"].round(6).to_numpy(),
        status=rows["status"].to_numpy(),
        settings=[
            ", ".join(f"{each} {words.value_text(row[each])}" for each in search.settings)
            for row in rows.to_dict("records")
        ],
    )
    ticks = pd.DataFrame(
        [
            {"axis": axis["name"], "place": place, "label": label}
            for axis in axes
            for place, label in axis["ticks"]
        ]
    )
    form = ".2%" if is_share(objective) else ".4f"
    x = alt.X(
        "axis:N", sort=names, title=None, axis=alt.Axis(labelAngle=0, orient="top", labelLimit=140)
    )
    y = alt.Y("place:Q", title=None, axis=None, scale=alt.Scale(domain=[-0.02, 1.02]))
    of_axes = pd.DataFrame({"axis": names, "low": 0.0, "high": 1.0})
    low = alt.Y("low:Q", title=None, axis=None)
    rules = alt.Chart(of_axes).mark_rule(color="#8888").encode(x=x, y=low, y2="high:Q")
    base = (
        alt.Chart(wide, title=search.name)
        .transform_fold(names, as_=["axis", "place"])
        .encode(
            x=x,
            y=y,
            detail="sample:Q",
            tooltip=[
                "sample:Q",
                "status:N",
                "settings:N",
                alt.Tooltip("reached:Q", format=form, title=title),
            ],
        )
    )
    stopped = base.transform_filter("datum.status == 'stopped'").mark_line(
        color=_STOPPED, strokeDash=[3, 3], opacity=0.5
    )
    finished = base.transform_filter("datum.status != 'stopped'").mark_line(
        strokeWidth=1.6, opacity=0.75
    )
    colored = finished.encode(
        color=alt.Color(
            "reached:Q",
            scale=alt.Scale(
                scheme="viridis",
                reverse=not is_share(objective),
                type="log" if over_magnitudes else "linear",
            ),
            legend=alt.Legend(title=title, orient="bottom", format=form, gradientLength=WIDTH // 2),
        )
    )
    labels = (
        alt.Chart(ticks)
        .mark_text(align="left", dx=6, fontSize=10, color="currentColor")
        .encode(x=x, y=y, text="label:N")
    )
    points = alt.Chart(ticks).mark_tick(thickness=1, width=6, color="#888").encode(x=x, y=y)
    width = max(WIDTH, 110 * len(names))
    is_stopped = rows["status"] == "stopped"
    lines = [*([stopped] if is_stopped.any() else []), *([] if is_stopped.all() else [colored])]
    layers = alt.layer(*lines, rules, points, labels)
    return spec_of(layers.properties(width=width, height=HEIGHT))


def _axis(
    values: pd.Series, name: str, is_log: bool, *, is_choice: bool = False, is_percent: bool = False
) -> dict[str, Any]:
    """An axis of parallel coordinates: each value's place in [0, 1], and some labeled places, those of
    a choice's values if there are few.

    A value that is missing, such as a setting that another one rules out, is a place of its own at the
    bottom.
    """
    missing = values.isna()
    bottom = 0.1 if missing.any() and not missing.all() else 0.0
    ticks = [(0.0, "–")] if missing.any() else []
    if is_numeric(values):
        numbers = values.astype(float)
        scaled = numbers.map(math.log10, na_action="ignore") if is_log else numbers
        low, high = float(scaled.min()), float(scaled.max())
        span = (high - low) or 1.0
        places = bottom + (1 - bottom) * (scaled - low) / span
        every = sorted(set(numbers.dropna()))
        if not (is_choice and len(every) <= _TICKS) and len(every) > 1:
            every = _round_numbers(every[0], every[-1], is_log)
        for number in every:
            at = (math.log10(number) if is_log else number) - low
            label = f"{number:.4%}".replace("000%", "%") if is_percent else f"{number:.4g}"
            ticks.append((bottom + (1 - bottom) * at / span, _short(label)))
    else:
        texts = sorted({words.value_text(value) for value in values.dropna()})
        step = (1 - bottom) / max(len(texts) - 1, 1)
        at_text = {text: bottom + n * step for n, text in enumerate(texts)}
        places = values.map(lambda value: at_text.get(words.value_text(value)), na_action="ignore")
        ticks += [(place, text) for text, place in at_text.items()]
    return {
        "name": f"{name} (log)" if is_log else name,
        "places": places.astype(float).fillna(0.0).round(4).to_numpy(),
        "ticks": ticks,
    }


def _short(label: str) -> str:
    """Without zeros at the end of a percentage's digits."""
    number, percent, _ = label.partition("%")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + percent


def _over_magnitudes(frames: Sequence[pd.DataFrame], objective: str) -> bool:
    """Whether losses belong on a logarithmic axis, as where some trainings diverged."""
    reached = pd.concat([rows["reached"] for rows in frames])
    return not is_share(objective) and bool(0 < 10 * reached.min() < reached.max())


def _round_numbers(low: float, high: float, is_log: bool) -> list[float]:
    """Round numbers within a range of two ends: some five, or 1 and 3 of each decade."""
    if is_log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = [1.0] if len(decades) > _TICKS else [1.0, 3.0]
        numbers = [base * 10.0**decade for decade in decades for base in every]
    else:
        raw = (high - low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
        first = math.ceil(low / step - 1e-9)
        numbers = [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]
    slack = 1e-9 * (high - low)
    return [number for number in numbers if low - slack <= number <= high + slack]


def setting_chart(searched: Sequence[Search], setting: str) -> Spec:
    """The objective of each sample against one setting: a panel for each method, a color for each of
    its searches. Stopped samples are small and gray.

    Args:
        searched: The searches that search this setting, for the same objective.
        setting: The setting.
    """
    objective, drawn = searched[0].objective, [drawn_samples(one) for one in searched]
    frames = [
        pd.DataFrame(
            {
                "configuration": one.name,
                "method": one.keys["method"],
                "value": rows[setting],
                "reached": rows["reached"].round(6),
                "sample": rows["sample"].astype(int),
                "stopped": rows["status"] == "stopped",
            }
        )
        for one, rows in zip(searched, drawn, strict=True)
    ]
    points = pd.concat(frames, ignore_index=True).dropna(subset="value")
    is_number, heading = is_numeric(points["value"]), setting.replace("_", " ")
    form = ".2%" if is_share(objective) else ".4f"
    title = words.objective(objective)
    if is_number:
        is_log = any(one.is_log(setting) for one in searched)
        scale = alt.Scale(type="log", nice=False, padding=8) if is_log else alt.Scale(zero=False)
        every = sorted(set(points["value"]))
        axis = alt.Axis(labelExpr=_AS_IT_IS, labelOverlap="greedy", tickCount=_TICKS)
        if len(every) <= _TICKS and any(one.is_choice(setting) for one in searched):
            axis.values = every
        elif is_log and len(every) > 1:
            axis.values = _round_numbers(every[0], every[-1], is_log)
        x = alt.X("value:Q", title=heading, scale=scale, axis=axis)
    else:
        points["value"] = points["value"].map(words.value_text)
        x = alt.X("value:N", title=heading, axis=alt.Axis(labelAngle=0))
    magnitudes = _over_magnitudes(drawn, objective)
    levels = alt.Scale(type="log", nice=False, padding=8) if magnitudes else alt.Scale(zero=False)
    y = alt.Y(
        "reached:Q",
        title=title,
        scale=levels,
        axis=alt.Axis(format="%" if is_share(objective) else alt.Undefined),
    )
    tooltip = [
        alt.Tooltip("configuration:N"),
        alt.Tooltip("sample:Q"),
        alt.Tooltip("value:Q" if is_number else "value:N", title=heading),
        alt.Tooltip("reached:Q", format=form, title=title),
    ]
    configurations = list(dict.fromkeys(points["configuration"]))
    methods = list(dict.fromkeys(points["method"]))
    color: alt.Color | alt.ColorValue = alt.ColorValue(COLORS[0])
    if len(configurations) > len(methods):
        legend = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=300)
        color, _ = colors_of(configurations, legend)
    base = alt.Chart().encode(x=x, y=y, tooltip=tooltip)
    stopped = base.transform_filter("datum.stopped").mark_point(color=_STOPPED, size=12, opacity=0.6)
    finished = base.transform_filter("!datum.stopped").mark_circle(size=40, opacity=0.75)
    kinds = [stopped] if points["stopped"].any() else []  # Vega warns of a layer without a point
    kinds += [] if points["stopped"].all() else [finished.encode(color=color)]
    layers = alt.layer(*kinds, data=points)
    chart = layers.properties(width=WIDTH * 2 // 3, height=HEIGHT * 2 // 3).facet(
        facet=alt.Facet("method:N", sort=methods, title=None),
        columns=3,
        title=f"{title} by {heading}".capitalize(),
    )
    return spec_of(chart)


_SPENT = {"samples": "samples", "steps": "optimizer steps", "seconds": "seconds of trials"}


def history_chart(histories: Mapping[str, pd.DataFrame], spent: str, title: str) -> Spec:
    """The best so far of each search against what its samples took.

    Args:
        histories: For each search's name, its rows of `results.search_history`, for one objective.
        spent: Column on the x axis: `samples`, `steps` or `seconds`.
        title: The chart's.
    """
    frames = []
    for name, history in histories.items():
        known = history[history["best"].notna()]
        # Where the best changes, and the end: the lines between are level.
        corners = known[known["is_new_best"] | (known.index == history.index[-1])]
        frames.append(
            corners[["best", "sample", "samples", "steps", "seconds"]].assign(configuration=name)
        )
    points = pd.concat(frames, ignore_index=True)
    objective = next(iter(histories.values()))["objective"].iloc[0]
    color, dash = colors_of(
        list(histories), alt.Legend(title=None, orient="bottom", columns=2, labelLimit=300)
    )
    form = ".2%" if is_share(objective) else ".4f"
    chart = (
        alt.Chart(points.round(6), title=title)
        .mark_line(interpolate="step-after", point=alt.OverlayMarkDef(size=18))
        .encode(
            x=alt.X(f"{spent}:Q", title=_SPENT[spent], axis=alt.Axis(tickMinStep=1)),
            y=alt.Y(
                "best:Q",
                title=None,
                scale=alt.Scale(zero=False),
                axis=alt.Axis(format="%" if is_share(objective) else alt.Undefined),
            ),
            color=color,
            strokeDash=dash,
            tooltip=[
                alt.Tooltip("configuration:N"),
                alt.Tooltip("best:Q", format=form, title="best so far"),
                alt.Tooltip("sample:Q"),
                *(alt.Tooltip(f"{each}:Q", format=",.0f", title=text) for each, text in _SPENT.items()),
            ],
        )
    )
    return spec_of(chart.properties(width=WIDTH, height=HEIGHT))


def importance_chart(found: Mapping[str, Importance], title: str) -> Spec:
    """The importance of each searched setting, a bar for each search.

    Args:
        found: By the search's name, those that are not refused.
        title: The chart's.
    """
    rows = [
        {
            "configuration": name,
            "setting": setting.replace("_", " "),
            "importance": round(share, 4),
            "measure": one.measure,
            "n": one.n,
            "explained": round(one.explained, 4),
        }
        for name, one in found.items()
        for setting, share in one.shares.items()
    ]
    bars = pd.DataFrame(rows)
    order: Sequence[str] = list(
        bars.groupby("setting")["importance"].mean().sort_values(ascending=False).index
    )
    names = list(found)
    color, _ = colors_of(names, alt.Legend(title=None, orient="bottom", columns=2, labelLimit=300))
    chart = (
        alt.Chart(bars, title=title)
        .mark_bar()
        .encode(
            x=alt.X(
                "importance:Q",
                title="share of the explained variance",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%"),
            ),
            y=alt.Y("setting:N", sort=order, title=None, axis=alt.Axis(labelLimit=200)),
            yOffset=alt.YOffset("configuration:N", sort=names),
            color=color,
            tooltip=[
                alt.Tooltip("configuration:N"),
                alt.Tooltip("setting:N"),
                alt.Tooltip("importance:Q", format=".1%"),
                "measure:N",
                "n:Q",
                alt.Tooltip("explained:Q", format=".0%", title="explained of new samples"),
            ],
        )
    )
    height = max(80, len(order) * (14 * len(names) + 14))
    return spec_of(chart.properties(width=WIDTH, height=height))

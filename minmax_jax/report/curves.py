"""The course of a training run."""

import pathlib

from minmax_jax.report import charts, metric_records

# Title, unit, and the (kind, name, label) of each line; the chart of the loss terms depends on the method.
_CHARTS = (
    (
        "Conditional entropy, validation",
        "nats",
        (
            ("validation", "foreground_entropy", "foreground"),
            ("validation", "background_entropy", "background"),
        ),
    ),
    (
        "Classification error",
        "%",
        (
            ("train", "classification_error", "training"),
            ("validation", "classification_error", "validation"),
            ("validation", "localizer_classification_error", "validation, localizer"),
        ),
    ),
    (
        "Masks, validation",
        "%",
        (
            ("validation", "f1_foreground", "F1+"),
            ("validation", "f1_background", "F1-"),
            ("validation", "false_foreground_share", "false foreground"),
        ),
    ),
)


def draw_curves(
    path: pathlib.Path, metrics_path: pathlib.Path, *, selected_step: int, log_terms: tuple[str, ...] = ()
) -> None:
    """Writes a PNG of losses, entropies, errors and F1 over the steps.

    Args:
        path: of the file.
        metrics_path: of the run's `metrics.jsonl`.
        selected_step: marked in each chart.
        log_terms: loss terms of the method, as in `method.Method`.
    """
    import matplotlib.figure  # Here, because it slows down the import of the library.

    records = metric_records.read(metrics_path)
    terms = tuple(("train", name, name.removesuffix("_loss")) for name in ("loss", *log_terms))
    panels = (("Loss and its terms, training", "nats", terms), *_CHARTS)
    figure = matplotlib.figure.Figure(figsize=(11, 7), layout="constrained")
    for axis, (title, unit, lines) in zip(figure.subplots(2, 2).flat, panels):
        axis.set_visible(False)  # of a chart without any value, such as F1 without masks, nothing is drawn
        for kind, name, label in lines:
            points = charts.finite_points((r["step"], r.get(name)) for r in records if r["kind"] == kind)
            if points:
                axis.set_visible(True)
                axis.plot(*zip(*points), label=label, marker="." if len(points) < 40 else None)
        axis.axvline(selected_step, color="0.6", linestyle=":", label="selected")
        axis.set(title=title, xlabel="step", ylabel=unit)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)

"""The course of a training run."""

import pathlib

from minmax_jax.runs import metric_writers

# Title, unit, and the (kind, name, label) of each line.
_CHARTS = (
    (
        "Loss terms, training",
        "nats",
        (
            ("train", "localizer_loss", "localizer"),
            ("train", "foreground_loss", "foreground"),
            ("train", "background_loss", "background"),
        ),
    ),
    (
        "Conditional entropy, validation",
        "nats",
        (
            ("validation", "entropy_foreground", "foreground"),
            ("validation", "entropy_background", "background"),
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
        "Localization, validation (never used to select)",
        "%",
        (
            ("validation", "f1_foreground", "F1+"),
            ("validation", "f1_background", "F1-"),
        ),
    ),
)


def draw_curves(path: pathlib.Path, metrics_path: pathlib.Path, *, selected_step: int) -> None:
    """Writes a PNG of losses, entropies, errors and F1 over the steps.

    Args:
        path: of the file.
        metrics_path: of the run's `metrics.jsonl`.
        selected_step: marked in each chart.
    """
    import matplotlib.figure  # Here, so that importing the library stays light.

    records = metric_writers.read(metrics_path)
    figure = matplotlib.figure.Figure(figsize=(11, 7), layout="constrained")
    for axis, (title, unit, lines) in zip(figure.subplots(2, 2).flat, _CHARTS):
        for kind, name, label in lines:
            points = [(r["step"], r[name]) for r in records if r["kind"] == kind and r.get(name) is not None]
            if points:
                axis.plot(*zip(*points), label=label, marker="." if len(points) < 40 else None)
        axis.axvline(selected_step, color="0.6", linestyle=":", label="selected")
        axis.set(title=title, xlabel="step", ylabel=unit)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)

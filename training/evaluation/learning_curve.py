"""The error rates in the log of an encoder's training over its minutes, as a picture."""

import argparse
import json


def plot_training(args: argparse.Namespace) -> dict:
    """`evaluate hearing --plot log.jsonl`: a line for each pool; returns the last of each.

    Errors are those of words if they were measured (duplex.training.encoder --lexicon), else those
    of phones. The picture is beside the result, as .png.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logged = [json.loads(line) for line in args.plot.read_text().splitlines()]
    has_words = any("wer" in line for line in logged)
    key, what = ("wer", "words") if has_words else ("phone_errors", "phones")
    lines = [line for line in logged if key in line]
    figure = Figure(figsize=(8, 4.5), layout="tight")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for pool in dict.fromkeys(line["pool"] for line in lines):
        minutes = [line["minutes"] for line in lines if line["pool"] == pool]
        percent = [100 * line[key] for line in lines if line["pool"] == pool]
        label = f"{pool}: {percent[-1]:.1f} %"
        axis.plot(minutes, percent, label=label, marker=".", markersize=3)
    axis.set(
        xlabel="minutes of training",
        ylabel=f"wrong {what}, %",
        ylim=(0, 100),
        title="Clips kept aside",
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(args.result.with_suffix(".png"), dpi=100)
    return {line["pool"]: [line["minutes"], line[key]] for line in lines}

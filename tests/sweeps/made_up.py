"""Made-up sweeps whose optimum moves by a known number of octaves per doubling of the width."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

RATES = tuple(2.0**-x for x in range(13, 4, -1))
WIDTHS = (64, 128, 256)


def loss_of(rate: float, width: float, drift: float, noise: float = 0.0) -> float:
    """A valley that is no parabola, with its minimum at 2^-9 for width 64."""
    off = math.log2(rate) + 9 - drift * math.log2(width / 64)
    return 3 - 0.1 * math.log2(width) + 0.02 * off**2 + 0.0005 * off**4 + noise


def runs(
    drift: float, *, seeds: Sequence[int] = (0,), noise: float = 0.0, widths: Sequence[int] = WIDTHS
) -> pd.DataFrame:
    """One row for each run, with columns width, lr, seed and loss."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {"width": width, "lr": rate, "seed": seed, "loss": loss_of(rate, width, drift, noise * rng.normal())}
        for width in widths
        for rate in RATES
        for seed in seeds
    )


def tidy_csv(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(path := folder / "runs.csv", index=False)
    return path


def tab_separated(table: pd.DataFrame, folder: Path) -> Path:
    table.rename(columns={"lr": "learning rate", "loss": "Validation loss"}).to_csv(
        path := folder / "runs.tsv", sep="\t"
    )
    return path


def decimal_commas(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(path := folder / "runs.csv", sep=";", decimal=",", index=False)
    return path


def json_records(table: pd.DataFrame, folder: Path) -> Path:
    rows = [
        {
            "name": f"run-{at}",
            "config": {"optimizer": {"lr": row["lr"]}, "width": row["width"]},
            "summary": {"loss": row["loss"]},
        }
        for at, row in enumerate(table.to_dict("records"))
    ]
    (path := folder / "runs.json").write_text(json.dumps(rows))
    return path


def json_lines(table: pd.DataFrame, folder: Path) -> Path:
    table.to_json(path := folder / "runs.jsonl", orient="records", lines=True)
    return path


def json_split(table: pd.DataFrame, folder: Path) -> Path:
    table.to_json(path := folder / "runs.json", orient="split", index=False)
    return path


def wandb_runs(table: pd.DataFrame, folder: Path) -> Path:
    """The rate in a column, with what W&B adds."""
    made = table.rename(columns={"lr": "config.lr.value", "width": "config.d_model.value", "loss": "eval/loss"})
    made = made.assign(
        State="finished", Runtime=range(len(made)), Created="2025-01-01", Sweep="s1", **{"train/loss": 9.0}
    )
    made.insert(0, "Name", [f"dashing-sun-{at}" for at in range(len(made))])
    made.to_csv(path := folder / "wandb.csv", index=False)
    return path


def wandb_names(table: pd.DataFrame, folder: Path) -> Path:
    """The rate and the width only in the run's name."""
    names = [f"mup_w{row.width}-lr{row.lr:.3e}" for row in table.itertuples()]
    made = pd.DataFrame({"Name": names, "State": "finished", "loss": table.loss})
    made.to_csv(path := folder / "wandb.csv", index=False)
    return path


def wandb_panel(table: pd.DataFrame, folder: Path) -> Path:
    """The history of every run, as a chart is exported: three columns for each run."""
    columns: dict[str, object] = {"Step": [100, 200, 300]}
    for row in table.itertuples():
        history = [row.loss + 1, row.loss + 0.5, row.loss]
        name = f"width{row.width}_lr{row.lr:.3e} - val/loss"
        columns |= {name: history, f"{name}__MIN": history, f"{name}__MAX": history}
    pd.DataFrame(columns).to_csv(path := folder / "panel.csv", index=False)
    return path


def wandb_panel_of_rates(table: pd.DataFrame, folder: Path) -> Path:
    """A panel with the rate along x, and one run for each width."""
    wide = table.pivot_table(index="lr", columns="width", values="loss").reset_index()
    wide.columns = ["lr", *(f"width {width} - loss" for width in wide.columns[1:])]
    wide.to_csv(path := folder / "panel.csv", index=False)
    return path


def neptune(table: pd.DataFrame, folder: Path) -> Path:
    made = table.rename(
        columns={"lr": "parameters/lr", "width": "parameters/width", "loss": "metrics/val/loss (last)"}
    ).assign(
        **{"sys/id": [f"RUN-{at}" for at in range(len(table))], "sys/creation_time": "2025-01-01", "sys/owner": "me"}
    )
    made.to_csv(path := folder / "neptune.csv", index=False)
    return path


def file_for_each_rate(table: pd.DataFrame, folder: Path) -> Path:
    (path := folder / "sweep").mkdir()
    for rate, own in table.groupby("lr"):
        own[["width", "loss"]].to_csv(path / f"lr_{rate:.3e}.csv", index=False)
    return path


def file_for_each_run(table: pd.DataFrame, folder: Path) -> Path:
    """Histories, whose names say all else."""
    (path := folder / "sweep").mkdir()
    for row in table.itertuples():
        made = pd.DataFrame({"step": [1, 2, 3], "loss": [row.loss + 2, row.loss + 1, row.loss]})
        made.to_csv(path / f"d_model={row.width},lr={row.lr:g}.csv", index=False)
    return path


def folders_of_runs(table: pd.DataFrame, folder: Path) -> Path:
    """Histories of one name, in folders that say all else."""
    for row in table.itertuples():
        (path := folder / "sweep" / f"width_{row.width}" / f"lr_{row.lr:g}").mkdir(parents=True)
        pd.DataFrame({"step": [1, 2], "loss": [row.loss + 1, row.loss]}).to_csv(path / "metrics.csv", index=False)
    return folder / "sweep"


def quoted_rates(table: pd.DataFrame, folder: Path) -> Path:
    """Rates as text: in quotes of Python, or with their name."""
    texts = [f"'{rate:g}'" if at % 2 else f"lr={rate:g}" for at, rate in enumerate(table.lr)]
    return tidy_csv(table.assign(lr=texts), folder)


def markdown_pivot(table: pd.DataFrame, folder: Path) -> Path:
    """Rates down and widths across, the best in bold, with spreads."""
    lines = ["# Results", "", "| lr \\ width | 64 | **128** | 256 |", "|---|---:|---:|---:|"]
    for rate, own in table.groupby("lr"):
        cells = [f"{loss:.6f} ± 0.01" for loss in own.sort_values("width").loss]
        lines.append(f"| 2^{int(math.log2(rate))} | **{cells[0]}** | {cells[1]} | {cells[2]} |")
    (path := folder / "README.md").write_text("\n".join([*lines, "", "That is all."]))
    return path


def markdown_across(table: pd.DataFrame, folder: Path) -> Path:
    """Rates across, no name in the corner."""
    lines = ["|  | " + " | ".join(f"{rate:g}" for rate in RATES) + " |", "|" + "--|" * (len(RATES) + 1)]
    for width, own in table.groupby("width"):
        lines.append(f"| d{width} | " + " | ".join(f"{loss:.6f}" for loss in own.loss) + " |")
    (path := folder / "table.md").write_text("\n".join(lines))
    return path


def markdown_for_each_width(table: pd.DataFrame, folder: Path) -> Path:
    lines = []
    for width, own in table.groupby("width"):
        lines += [f"## width {width}", "", "| lr | loss |", "|---|---|"]
        lines += [f"| {row.lr:.3e} | {row.loss:.6f} |" for row in own.itertuples()] + [""]
    (path := folder / "table.md").write_text("\n".join(lines))
    return path


def markdown_under_headings(table: pd.DataFrame, folder: Path) -> Path:
    lines = ["# Sweeps", "", "| what | when |", "|---|---|", "| nothing | today |", ""]
    for width, own in table.groupby("width"):
        lines += [f"**{width} wide:**", "", "| Learning rate | Loss (mean) |", "|---|---|"]
        lines += [f"| {row.lr:.3e} | {row.loss:.6f} |" for row in own.itertuples()] + [""]
    (path := folder / "table.md").write_text("\n".join(lines))
    return path


def pivot_of_named_rates(table: pd.DataFrame, folder: Path) -> Path:
    """``lr=`` before each rate, in a file whose name ends in a number that means nothing."""
    rows = table.pivot(index="width", columns="lr", values="loss").rename(columns=lambda rate: f"lr={rate:g}")
    rows.rename_axis("model").to_csv(path := folder / "grid2.csv")
    return path


def pivot_csv(table: pd.DataFrame, folder: Path) -> Path:
    """One column of losses for each width."""
    wide = table.pivot_table(index="lr", columns="width", values="loss")
    wide.columns = [f"loss_w{width}" for width in wide.columns]
    wide.to_csv(path := folder / "wide.csv")
    return path


def json_by_run(table: pd.DataFrame, folder: Path) -> Path:
    rows = {
        f"run-{at}": {"lr": row.lr, "width": row.width, "loss": row.loss} for at, row in enumerate(table.itertuples())
    }
    (path := folder / "runs.json").write_text(json.dumps(rows))
    return path


def json_of_pandas(table: pd.DataFrame, folder: Path) -> Path:
    table.to_json(path := folder / "runs.json")
    return path


def tensorboard(table: pd.DataFrame, folder: Path) -> Path:
    (path := folder / "sweep").mkdir()
    for row in table.itertuples():
        made = pd.DataFrame({"Wall time": [1.7e9, 1.8e9], "Step": [100, 200], "Value": [row.loss + 1, row.loss]})
        made.to_csv(path / f"run-mup_width_{row.width}_lr_{row.lr:g}-tag-loss.csv", index=False)
    return path


def optuna_trials(table: pd.DataFrame, folder: Path) -> Path:
    """The frame of ``trials_dataframe``, with one pruned trial."""
    made = table.rename(
        columns={"loss": "value", "lr": "params_lr", "width": "params_width", "seed": "user_attrs_seed"}
    )
    made = made.assign(datetime_start="2025-01-01", duration="0 days", state="COMPLETE")
    made.loc[len(made)] = {**made.iloc[0].to_dict(), "value": 0.1, "state": "PRUNED"}
    made.to_csv(path := folder / "trials.csv", index_label="number")
    return path


def ray_results(table: pd.DataFrame, folder: Path) -> Path:
    """One folder for each trial, with result.json for some and progress.csv for others."""
    for at, row in enumerate(table.to_dict("records")):
        (trial := folder / "results" / f"train_{at:05d}").mkdir(parents=True)
        config = {"lr": row["lr"], "width": row["width"]}
        (trial / "params.json").write_text(json.dumps(config))
        reports = [
            {"loss": row["loss"] + 2 - i, "training_iteration": i + 1, "trial_id": f"{at:05d}"} for i in range(3)
        ]
        if at % 2:
            pd.DataFrame(reports).to_csv(trial / "progress.csv", index=False)
        else:
            text = "\n".join(json.dumps({**report, "config": config}) for report in reports)
            (trial / "result.json").write_text(text + "\n")
    return folder / "results"


def with_commas(table: pd.DataFrame, folder: Path, separator: str = "\t", quote: str = "") -> Path:
    """Decimal commas between tabs, or in quotation marks between commas."""

    def cell(value: float) -> str:
        return f"{quote}{value:.6f}{quote}".replace(".", ",")

    lines = [separator.join([cell(row.lr), str(row.width), cell(row.loss)]) for row in table.itertuples()]
    (path := folder / "runs.csv").write_text("\n".join([separator.join(["lr", "width", "loss"]), *lines]))
    return path


def quoted_commas(table: pd.DataFrame, folder: Path) -> Path:
    return with_commas(table, folder, ",", '"')


def thousands(table: pd.DataFrame, folder: Path) -> Path:
    return tidy_csv(table.assign(tokens=f"{10**9:,}", loss=table.loss.map(lambda x: f"{1e6 * x:,.3f}")), folder)


def thousands_in_europe(table: pd.DataFrame, folder: Path) -> Path:
    losses = [f"{1e6 * x:,.3f}".translate(str.maketrans(",.", ".,")) for x in table.loss]
    table.assign(loss=losses).to_csv(path := folder / "runs.csv", sep=";", decimal=",", index=False)
    return path


def of_excel(table: pd.DataFrame, folder: Path) -> Path:
    """Unicode text."""
    table.to_csv(path := folder / "runs.txt", sep="\t", index=False, encoding="utf-16")
    return path


def of_windows(table: pd.DataFrame, folder: Path) -> Path:
    table.assign(notes="größe").to_csv(path := folder / "runs.csv", index=False, encoding="cp1252")
    return path


def zipped(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(path := folder / "runs.csv.gz", index=False)
    return path


def joined_files(table: pd.DataFrame, folder: Path) -> Path:
    """A remark, then the tables of all widths, each with its header."""
    parts = [own.to_csv(index=False) for _, own in table.groupby("width")]
    (path := folder / "runs.csv").write_text("# made by sweep.py\n" + "".join(parts))
    return path


def times_ten(table: pd.DataFrame, folder: Path) -> Path:
    return tidy_csv(table.assign(lr=table.lr * 1e4).rename(columns={"lr": "lr (x1e-4)"}), folder)


def typeset(table: pd.DataFrame, folder: Path) -> Path:
    rates = [f"{rate:.6e}".replace("e-0", " × 10⁻") for rate in table.lr]  # noqa: RUF001
    return tidy_csv(table.assign(lr=rates), folder)


def fractions(table: pd.DataFrame, folder: Path) -> Path:
    return tidy_csv(table.assign(lr=[f"1/{1 / rate:.0f}" for rate in table.lr]), folder)


def natural_logarithms(table: pd.DataFrame, folder: Path) -> Path:
    return tidy_csv(table.assign(lr=np.log(table.lr)).rename(columns={"lr": "ln(lr)"}), folder)


def minus_logarithms(table: pd.DataFrame, folder: Path) -> Path:
    return tidy_csv(table.assign(lr=-np.log2(table.lr)).rename(columns={"lr": "-log2(lr)"}), folder)


def wandb_script(table: pd.DataFrame, folder: Path) -> Path:
    """The script of W&B's documentation: configuration and summary as Python prints them, in one cell each."""
    configs = [str({"opt": {"kwargs": {"lr": row.lr}}, "width": row.width}) for row in table.itertuples()]
    summaries = [str({"loss": loss, "_step": 100, "grad": math.nan}) for loss in table.loss]
    names = [f"dashing-sun-{at}" for at in range(len(table))]
    return tidy_csv(pd.DataFrame({"summary": summaries, "config": configs, "name": names}), folder)


def logged_rates(table: pd.DataFrame, folder: Path) -> Path:
    """Histories with the rate of each step, which falls to one minimum."""
    rows = [
        {
            "run": at,
            "width": row.width,
            "step": step,
            "lr": max(row.lr * (1 - step / 4), 1e-5),
            "loss": row.loss + 3 - step,
        }
        for at, row in enumerate(table.itertuples())
        for step in range(4)
    ]
    return tidy_csv(pd.DataFrame(rows).assign(run=lambda t: "r" + t.run.astype(str)), folder)


def seeds_across(table: pd.DataFrame, folder: Path) -> Path:
    wide = table.pivot(index=["width", "lr"], columns="seed", values="loss").add_prefix("loss_seed")
    return tidy_csv(wide.assign(loss_seed1=wide.iloc[:, 0]).reset_index(), folder)


def printed(table: pd.DataFrame, folder: Path) -> Path:
    """As pandas prints it, with an arrow for what is better."""
    (path := folder / "runs.txt").write_text(table.rename(columns={"loss": "loss↓"}).to_string(index=False))
    return path


FORMATS: tuple[Callable[[pd.DataFrame, Path], Path], ...] = (
    tidy_csv,
    tab_separated,
    seeds_across,
    printed,
    decimal_commas,
    json_records,
    json_lines,
    json_split,
    wandb_runs,
    wandb_names,
    wandb_panel,
    wandb_panel_of_rates,
    neptune,
    file_for_each_rate,
    file_for_each_run,
    markdown_pivot,
    markdown_across,
    markdown_for_each_width,
    markdown_under_headings,
    pivot_csv,
    pivot_of_named_rates,
    folders_of_runs,
    quoted_rates,
    json_by_run,
    json_of_pandas,
    tensorboard,
    optuna_trials,
    ray_results,
    with_commas,
    quoted_commas,
    thousands,
    thousands_in_europe,
    of_excel,
    of_windows,
    zipped,
    joined_files,
    times_ten,
    typeset,
    fractions,
    natural_logarithms,
    minus_logarithms,
    wandb_script,
    logged_rates,
)

"""Made-up sweeps whose optimum moves by a known number of octaves per doubling of the width."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mue_check.cli import main

RATES = tuple(2.0**-x for x in range(13, 4, -1))
WIDTHS = (64, 128, 256)


Capture = pytest.CaptureFixture[str]


def judge(capsys: Capture, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code and numbers of ``mue_check judge``."""
    code = main(["judge", *map(str, arguments), "--json", "-"])
    return code, json.loads(capsys.readouterr().out)


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


def tidy_csv(table: pd.DataFrame, folder: Path, name: str = "runs.csv", **options: object) -> Path:
    table.to_csv(path := folder / name, **{"index": False, **options})
    return path


Write = Callable[[pd.DataFrame, Path], Path]
Change = Callable[[pd.DataFrame], pd.DataFrame]


def csv(change: Change = lambda table: table, name: str = "runs.csv", **options: object) -> Write:
    """A changed table as CSV."""
    return lambda table, folder: tidy_csv(change(table), folder, name, **options)


def text(name: str, make: Callable[[pd.DataFrame], str | list[str]]) -> Write:
    """A file of text or of lines."""

    def write(table: pd.DataFrame, folder: Path) -> Path:
        made = make(table)
        (path := folder / name).write_text(made if isinstance(made, str) else "\n".join(made))
        return path

    return write


def files(name: str, make: Callable[[object], tuple[str, pd.DataFrame]]) -> Write:
    """A folder with a file of CSV for each run."""

    def write(table: pd.DataFrame, folder: Path) -> Path:
        (path := folder / name).mkdir()
        for row in table.itertuples():
            file, own = make(row)
            own.to_csv(path / file, index=False)
        return path

    return write


def json_records(table: pd.DataFrame) -> str:
    rows = table.to_dict("records")
    return json.dumps(
        [
            {
                "name": f"run-{at}",
                "config": {"optimizer": {"lr": row["lr"]}, "width": row["width"]},
                "summary": {"loss": row["loss"]},
            }
            for at, row in enumerate(rows)
        ]
    )


def wandb_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The rate in a column, with what W&B adds."""
    made = table.rename(columns={"lr": "config.lr.value", "width": "config.d_model.value", "loss": "eval/loss"})
    added = {
        "State": "finished",
        "Runtime": range(len(made)),
        "Created": "2025-01-01",
        "Sweep": "s1",
        "train/loss": 9.0,
    }
    return made.assign(**added, Name=[f"dashing-sun-{at}" for at in range(len(made))])


def wandb_names(table: pd.DataFrame, folder: Path) -> Path:
    """The rate and the width only in the run's name."""
    names = [f"mup_w{row.width}-lr{row.lr:.3e}" for row in table.itertuples()]
    return tidy_csv(pd.DataFrame({"Name": names, "State": "finished", "loss": table.loss}), folder)


def wandb_panel(table: pd.DataFrame) -> pd.DataFrame:
    """The history of every run, as a chart is exported: three columns for each run."""
    columns: dict[str, object] = {"Step": [100, 200, 300]}
    for row in table.itertuples():
        history = [row.loss + 1, row.loss + 0.5, row.loss]
        name = f"width{row.width}_lr{row.lr:.3e} - val/loss"
        columns |= {name: history, f"{name}__MIN": history, f"{name}__MAX": history}
    return pd.DataFrame(columns)


def wide(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A column of losses for each width: a pivot table, or a panel with the rate along x."""
    made = table.pivot_table(index="lr", columns="width", values="loss")
    return made.rename(columns=lambda width: name.format(width)).reset_index()


def neptune(table: pd.DataFrame) -> pd.DataFrame:
    made = table.rename(columns={"lr": "parameters/lr", "width": "parameters/width", "loss": "metrics/val/loss (last)"})
    added = {"sys/id": [f"RUN-{at}" for at in range(len(table))], "sys/creation_time": "2025-01-01", "sys/owner": "me"}
    return made.assign(**added)


def file_for_each_rate(table: pd.DataFrame, folder: Path) -> Path:
    (path := folder / "sweep").mkdir()
    for rate, own in table.groupby("lr"):
        own[["width", "loss"]].to_csv(path / f"lr_{rate:.3e}.csv", index=False)
    return path


def folders_of_runs(table: pd.DataFrame, folder: Path) -> Path:
    """Histories of one name, in folders that say all else."""
    for row in table.itertuples():
        (path := folder / "sweep" / f"width_{row.width}" / f"lr_{row.lr:g}").mkdir(parents=True)
        pd.DataFrame({"step": [1, 2], "loss": [row.loss + 1, row.loss]}).to_csv(path / "metrics.csv", index=False)
    return folder / "sweep"


def hydra(table: pd.DataFrame, folder: Path) -> Path:
    """A folder for each run, whose settings stand in a file beside its history; a remark is no table."""
    for at, row in enumerate(table.itertuples()):
        (own := folder / "multirun" / str(at) / ".hydra").mkdir(parents=True)
        (own / "overrides.yaml").write_text(f"- optim.lr={row.lr}\n- model.width={row.width}\n- optim.name=adamw\n")
        logged = pd.DataFrame({"step": [1, 2], "lr": [0.1, 0.2], "loss": [row.loss + 1, row.loss]})
        logged.to_csv(own.parent / "log.csv", index=False)
        (own.parent / "stdout.txt").write_text("step 1\n")
    (folder / "multirun" / "README.md").write_text("# What these runs are\n")
    return folder / "multirun"


def objects(table: pd.DataFrame, folder: Path) -> Path:
    """Settings in one file, results in another."""
    for at, row in enumerate(table.itertuples()):
        (own := folder / "runs" / f"run{at}").mkdir(parents=True)
        (own / "config.json").write_text(json.dumps({"optim": {"lr": row.lr}, "width": row.width, "betas": [0.9, 1]}))
        (own / "result.json").write_text(json.dumps({"loss": row.loss, "hours": 2.5}))
    return folder / "runs"


def trainer_states(table: pd.DataFrame, folder: Path) -> Path:
    """The state of transformers' Trainer, whose history is one list among other things."""
    for row in table.itertuples():
        (own := folder / f"model.width={row.width},optim.lr={row.lr}").mkdir()
        history = [{"loss": row.loss + 1, "learning_rate": 1e-5, "step": 50}, {"eval_loss": row.loss, "step": 100}]
        (own / "trainer_state.json").write_text(json.dumps({"global_step": 100, "log_history": history}))
    return folder


def pivot_of_named_rates(table: pd.DataFrame) -> pd.DataFrame:
    """``lr=`` before each rate."""
    rows = table.pivot(index="width", columns="lr", values="loss").rename(columns=lambda rate: f"lr={rate:g}")
    return rows.rename_axis("model").reset_index()


def markdown_pivot(table: pd.DataFrame) -> list[str]:
    """Rates down and widths across, the best in bold, with spreads."""
    lines = ["# Results", "", "| lr \\ width | 64 | **128** | 256 |", "|---|---:|---:|---:|"]
    for rate, own in table.groupby("lr"):
        cells = [f"{loss:.6f} ± 0.01" for loss in own.sort_values("width").loss]
        lines.append(f"| 2^{int(math.log2(rate))} | **{cells[0]}** | {cells[1]} | {cells[2]} |")
    return [*lines, "", "That is all."]


def markdown_across(table: pd.DataFrame) -> list[str]:
    """Rates across, no name in the corner."""
    lines = ["|  | " + " | ".join(f"{rate:g}" for rate in RATES) + " |", "|" + "--|" * (len(RATES) + 1)]
    rows = table.groupby("width")
    return [*lines, *(f"| d{width} | " + " | ".join(f"{loss:.6f}" for loss in own.loss) + " |" for width, own in rows)]


def markdown(table: pd.DataFrame, heading: str, rate: str, loss: str) -> list[str]:
    """A table under a heading for each width."""
    lines = ["# Sweeps", "", "| what | when |", "|---|---|", "| nothing | today |", ""] if "*" in heading else []
    for width, own in table.groupby("width"):
        lines += [heading.format(width), "", f"| {rate} | {loss} |", "|---|---|"]
        lines += [f"| {row.lr:.3e} | {row.loss:.6f} |" for row in own.itertuples()] + [""]
    return lines


def json_by_run(table: pd.DataFrame) -> str:
    rows = enumerate(table[["lr", "width", "loss"]].to_dict("records"))
    return json.dumps({f"run-{at}": row for at, row in rows})


def optuna_trials(table: pd.DataFrame) -> pd.DataFrame:
    """The frame of ``trials_dataframe``, with one pruned trial."""
    names = {"loss": "value", "lr": "params_lr", "width": "params_width", "seed": "user_attrs_seed"}
    made = table.rename(columns=names).assign(datetime_start="2025-01-01", duration="0 days", state="COMPLETE")
    made.loc[len(made)] = {**made.iloc[0].to_dict(), "value": 0.1, "state": "PRUNED"}
    return made


def ray_results(table: pd.DataFrame, folder: Path) -> Path:
    """One folder for each trial, with result.json for some and progress.csv for others."""
    for at, row in enumerate(table.to_dict("records")):
        (trial := folder / "results" / f"train_{at:05d}").mkdir(parents=True)
        config = {"lr": row["lr"], "width": row["width"]}
        (trial / "params.json").write_text(json.dumps(config))
        own = {"trial_id": f"{at:05d}"}
        reports = [{"loss": row["loss"] + 2 - i, "training_iteration": i + 1, **own} for i in range(3)]
        if at % 2:
            pd.DataFrame(reports).to_csv(trial / "progress.csv", index=False)
        else:
            lines = (json.dumps({**report, "config": config}) for report in reports)
            (trial / "result.json").write_text("\n".join(lines) + "\n")
    return folder / "results"


def with_commas(table: pd.DataFrame, separator: str, quote: str = "") -> list[str]:
    """Decimal commas between tabs, or in quotation marks between commas."""

    def cell(value: float) -> str:
        return f"{quote}{value:.6f}{quote}".replace(".", ",")

    rows = (separator.join([cell(row.lr), str(row.width), cell(row.loss)]) for row in table.itertuples())
    return [separator.join(["lr", "width", "loss"]), *rows]


def thousands_in_europe(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(loss=[f"{1e6 * x:,.3f}".translate(str.maketrans(",.", ".,")) for x in table.loss])


def joined_files(table: pd.DataFrame) -> str:
    """A remark, then the tables of all widths, each with its header."""
    return "# made by sweep.py\n" + "".join(own.to_csv(index=False) for _, own in table.groupby("width"))


def rates(change: Callable[["pd.Series"], object], name: str = "lr") -> Write:
    """The rates in another form."""
    return csv(lambda table: table.assign(lr=change(table.lr)).rename(columns={"lr": name}))


def wandb_script(table: pd.DataFrame) -> pd.DataFrame:
    """The script of W&B's documentation: configuration and summary as Python prints them, in one cell each."""
    configs = [str({"opt": {"kwargs": {"lr": row.lr}}, "width": row.width}) for row in table.itertuples()]
    summaries = [str({"loss": loss, "_step": 100, "grad": math.nan}) for loss in table.loss]
    names = [f"dashing-sun-{at}" for at in range(len(table))]
    return pd.DataFrame({"summary": summaries, "config": configs, "name": names})


def logged_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Histories with the rate of each step, which falls to one minimum."""
    rows = [
        (f"r{at}", row.width, step, max(row.lr * (1 - step / 4), 1e-5), row.loss + 3 - step)
        for at, row in enumerate(table.itertuples())
        for step in range(4)
    ]
    return pd.DataFrame(rows, columns=["run", "width", "step", "lr", "loss"])


def seeds_across(table: pd.DataFrame) -> pd.DataFrame:
    made = table.pivot(index=["width", "lr"], columns="seed", values="loss").add_prefix("loss_seed")
    return made.assign(loss_seed1=made.iloc[:, 0]).reset_index()


def history(name: str, columns: str, *rows: tuple[object, ...]) -> tuple[str, pd.DataFrame]:
    return name, pd.DataFrame(rows, columns=columns.split(","))


FORMATS: dict[str, Write] = {
    "tidy CSV": csv(),
    "tab separated": csv(
        lambda t: t.rename(columns={"lr": "learning rate", "loss": "Validation loss"}), "runs.tsv", sep="\t", index=True
    ),
    "seeds across": csv(seeds_across),
    "printed by pandas": text("runs.txt", lambda t: t.rename(columns={"loss": "loss↓"}).to_string(index=False)),
    "decimal commas": csv(sep=";", decimal=","),
    "JSON records": text("runs.json", json_records),
    "JSON lines": text("runs.jsonl", lambda t: t.to_json(orient="records", lines=True)),
    "JSON split": text("runs.json", lambda t: t.to_json(orient="split", index=False)),
    "JSON by run": text("runs.json", json_by_run),
    "JSON of pandas": text("runs.json", lambda t: t.to_json()),
    "W&B runs": csv(wandb_runs),
    "W&B names": wandb_names,
    "W&B panel": csv(wandb_panel),
    "W&B panel of rates": csv(lambda t: wide(t, "width {} - loss")),
    "W&B script": csv(wandb_script),
    "Neptune": csv(neptune),
    "file for each rate": file_for_each_rate,
    "file for each run": files(
        "sweep",
        lambda r: history(
            f"d_model={r.width},lr={r.lr:g}.csv", "step,loss", (1, r.loss + 2), (2, r.loss + 1), (3, r.loss)
        ),
    ),
    "TensorBoard": files(
        "sweep",
        lambda r: history(
            *(f"run-mup_width_{r.width}_lr_{r.lr:g}-tag-loss.csv", "Wall time,Step,Value"),
            *((1.7e9, 100, r.loss + 1), (1.8e9, 200, r.loss)),
        ),
    ),
    "Markdown pivot": text("README.md", markdown_pivot),
    "Markdown across": text("table.md", markdown_across),
    "Markdown for each width": text("table.md", lambda t: markdown(t, "## width {}", "lr", "loss")),
    "Markdown under headings": text("table.md", lambda t: markdown(t, "**{} wide:**", "Learning rate", "Loss (mean)")),
    "pivot CSV": csv(lambda t: wide(t, "loss_w{}")),
    "pivot of named rates": csv(pivot_of_named_rates, "grid2.csv"),  # a number that means nothing
    "folders of runs": folders_of_runs,
    "Optuna": csv(optuna_trials, index=True, index_label="number"),
    "Ray": ray_results,
    "commas between tabs": text("runs.csv", lambda t: with_commas(t, "\t")),
    "quoted commas": text("runs.csv", lambda t: with_commas(t, ",", '"')),
    "thousands": csv(lambda t: t.assign(tokens=f"{10**9:,}", loss=t.loss.map(lambda x: f"{1e6 * x:,.3f}"))),
    "thousands in Europe": csv(thousands_in_europe, sep=";", decimal=","),
    "Excel's Unicode text": csv(name="runs.txt", sep="\t", encoding="utf-16"),
    "Windows": csv(lambda t: t.assign(notes="größe"), encoding="cp1252"),
    "gzip": csv(name="runs.csv.gz"),
    "joined files": text("runs.csv", joined_files),
    "Excel's first line": text(
        "runs.csv", lambda t: "sep=;\n" + t.assign(width=t.width.map("{:.2f}".format)).to_csv(sep=";", index=False)
    ),
    "perplexity": csv(lambda t: t.assign(loss=np.exp(t.loss)).rename(columns={"loss": "val_ppl"})),
    "unit of the loss": csv(lambda t: t.rename(columns={"loss": "val loss [nats]"})),
    "Hydra": hydra,
    "objects of JSON": objects,
    "Trainer": trainer_states,
    "times ten": rates(lambda lr: lr * 1e4, "lr (x1e-4)"),
    "typeset": rates(lambda lr: [f"{rate:.6e}".replace("e-0", " × 10⁻") for rate in lr]),  # noqa: RUF001
    "fractions": rates(lambda lr: [f"1/{1 / rate:.0f}" for rate in lr]),
    "quoted": rates(lambda lr: [f"'{rate:g}'" if at % 2 else f"lr={rate:g}" for at, rate in enumerate(lr)]),
    "natural logarithms": rates(np.log, "ln(lr)"),
    "minus logarithms": rates(lambda lr: -np.log2(lr), "-log2(lr)"),
    "logged rates": csv(logged_rates),
}

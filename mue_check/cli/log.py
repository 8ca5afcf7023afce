"""``mue_check log``: write a study's verdicts and loss curves to an experiment tracker."""

from pathlib import Path

from mue_check.cli.command import EXIT_OK, Commands, Options, Parser


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    log = commands.add_parser(
        "log",
        help="write a study's verdicts and curves to TensorBoard, MLflow or W&B",
        description="Judge a study's records and write every verdict, drift and loss curve to an experiment tracker, "
        "each question as a run. Without a network: TensorBoard and MLflow write files, W&B runs offline.",
        epilog="example: mue_check log reports/cpu --to tensorboard:runs",
    )
    log.add_argument("study", metavar="STUDY", type=Path, help="a folder written by `pytest suites/`")
    log.add_argument(
        "--to",
        required=True,
        metavar="TRACKER:PLACE",
        help="tensorboard:FOLDER, mlflow:ADDRESS (such as file:mlruns or sqlite:///mlflow.db) or wandb:PROJECT",
    )
    log.set_defaults(run=run)


def run(options: Options) -> int:
    """Judge the study and write it."""
    from mue_check.catalog import summarize
    from mue_check.overview.trackers import write_to

    number = write_to(options.to, summarize(options.study))
    print(f"{number} questions written to {options.to}")
    return EXIT_OK

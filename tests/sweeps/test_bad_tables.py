"""A table that cannot be judged is one clear line and exit code 2."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mue_check.cli import main
from tests.sweeps.made_up import runs, tidy_csv

TEXT = "lr,width,loss\n"


def text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (path := folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def changed(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], Path]:
    return lambda folder: tidy_csv(change(runs(0.0)), folder)


def folder_of(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (made := folder / "empty").mkdir()
        (made / name).write_text("x")
        return made

    return write


WHOLE = changed(lambda table: table)
BAD: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "no file": (lambda folder: folder / "none.csv", [], "cannot be read: No such file"),
    "empty": (text("a.csv", " \n"), [], "the file is empty"),
    "only a header": (text("a.csv", TEXT), [], "the table has no rows"),
    "bytes": (text("a.csv", b"\x89PNG\x00\x80"), [], "is not text"),
    "not gzip": (text("a.csv.gz", "lr,loss"), [], "cannot be read: Not a gzipped file"),
    "a name twice": (text("a.csv", "lr,loss,loss\n1e-3,2.5,2.6\n"), [], "two columns are named 'loss', and differ"),
    "numbers of two readings": (text("a.csv", 'lr,loss\n1e-3,"2,345"\n'), [], "'2,345' may be 2.345 or 2345"),
    "a logarithm without a base": (
        changed(lambda t: t.assign(log_lr=-9.0).drop(columns="lr")),
        [],
        "does not say the base of its logarithm: call it log2_lr, log10_lr or ln_lr",
    ),
    "rates that differ": (
        changed(lambda t: t.assign(**{"config.max_lr": range(1, len(t) + 1)})),
        [],
        "may be 'lr' or 'config.max_lr', which differ: choose with --x",
    ),
    "another ending": (text("a.doc", "x"), [], "must be a folder, or end in .csv"),
    "ragged": (text("a.csv", TEXT + "1e-3,64,2.5\n1e-3,64,2.5,7,8\n"), [], "is no table of CSV"),
    "no JSON": (text("a.json", "{"), [], "is not JSON"),
    "JSON of no rows": (text("a.json", '"lr"'), [], "is JSON, but no table"),
    "columns of two lengths": (text("a.json", '{"lr": [1, 2], "loss": [2]}'), [], "is no table"),
    "a line of no JSON": (text("a.jsonl", '{"lr": 1}\nlr=2\n'), [], "a.jsonl, line 2 is not JSON"),
    "Markdown of no table": (text("a.md", "# Results\n\nnone yet\n"), [], "has no Markdown table"),
    "a short row": (text("a.md", "| lr | loss |\n|--|--|\n| 1 |\n"), [], "has 1 cells, and its header 2"),
    "no Parquet": (text("a.parquet", "x"), [], "arquet"),
    "one run": (text("a.json", '{"lr": 1, "loss": 2}'), [], "column 'lr' has 1 different values"),
    "empty folder": (folder_of("notes.doc"), [], "the folder has no table"),
    "a web page": (text("a.csv", "<!DOCTYPE html>\n<html><title>Sign in</title></html>\n"), [], "it is a web page"),
    "a pointer": (text("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), [], "Git LFS"),
    "no rate": (changed(lambda t: t.rename(columns={"lr": "q"})), [], "no column is the learning rate by its name"),
    "no loss": (changed(lambda t: t.rename(columns={"loss": "q"})), [], "no column is the loss by its name"),
    "two rates": (changed(lambda t: t.assign(**{"config.lr": t.lr})), [], "may be 'lr', 'config.lr': choose with --x"),
    "negative rate": (changed(lambda t: t.assign(lr=-t.lr)), [], "learning rates are above 0 and finite"),
    "rates in words": (changed(lambda t: t.assign(lr="high")), [], "--x 'lr': 'high' is no number"),
    "losses in words": (changed(lambda t: t.assign(loss="good")), [], "--loss 'loss': 'good' is no number"),
    "no finite loss": (changed(lambda t: t.assign(loss="nan")), [], "column 'loss' has no finite loss"),
    "one rate": (changed(lambda t: t[t.lr == t.lr[0]]), [], "column 'lr' has 1 different values"),
    "two possible arms": (
        changed(lambda t: pd.concat([t.assign(width=w, a=w % 2, b=w // 2) for w in range(4)]).drop(columns="width")),
        [],
        "the arms may differ in 'a', 'b': choose with --arm",
    ),
    "no such column": (WHOLE, ["--arm", "depth"], "--arm: unknown column 'depth': allowed are width, lr"),
    "no such pair": (WHOLE, ["--pair", "width,tokens"], "--pair: unknown column 'tokens'"),
    "two roles": (WHOLE, ["--arm", "width", "--pair", "width"], "column 'width' has two roles"),
    "no such arm": (WHOLE, ["--reference", "512"], "--reference: unknown arm '512': allowed are 64, 128, 256"),
    "pattern without names": (WHOLE, ["--pattern", "lr"], "must have different names in braces"),
    "pattern that fits nothing": (WHOLE, ["--pattern", "w{width}"], "does not fit the name 'runs'"),
    "tolerance": (WHOLE, ["--tolerance", "9"], "must be above 0 and at most 2 octaves"),
    "law": (WHOLE, ["--law", "nan"], "--law nan: must be an exponent from -4 to 4"),
    "law without sizes": (
        changed(lambda t: t.assign(width=t.width.map({64: "tiny", 128: "small", 256: "big"}))),
        ["--law", "1"],
        "--law 1: the arms have no sizes, such as 'tiny'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, options, line = BAD[name]
    assert main(["judge", str(write(tmp_path)), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("mue_check judge: ")
    assert line in err

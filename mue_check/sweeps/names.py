"""Numbers and names as people write them: ``2^-8``, ``2.31 ± 0.02``, ``**2.3**``, ``350M``, ``w128-lr1e-3``."""

import math
import re

import pandas as pd

from mue_check.errors import JudgeError

_POWER = r"(?:2|10)(?:\^|\*\*)[({]?[-+]?\d+(?:\.\d+)?[)}]?"
_VALUE = rf"{_POWER}|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CELL = re.compile(rf"({_VALUE})\s*([kKMBT]?)\s*(?:(?:±|\+/?-|\().*)?")
_KEY_VALUE = re.compile(
    rf"(?<![A-Za-z0-9.])((?:[A-Za-z]\w*\.)+\w+(?==)|[A-Za-z][A-Za-z_ ]*?)\s*[=:_ -]?\s*"
    rf"({_POWER}|\d*\.?\d+(?:[eE][-+]?\d+)?)(?![A-Za-z0-9])"
)
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_EMPTY = {"", "-", "--", "–", "—", "n/a", "na", "nan", "none", "null", "?"}  # noqa: RUF001, the dashes of tables
_DIVERGED = {
    "inf",
    "+inf",
    "-inf",
    "infinity",
    "diverged",
    "div",
    "div.",
    "#div/0!",
    "#num!",
    "oom",
    "failed",
    "crashed",
    "x",
}

_WORDS = {
    "rate": "lr learning_rate learningrate base_lr max_lr peak_lr lr_max lr_peak maxlr initial_lr init_lr lr0 eta η "
    "step_size base_learning_rate max_learning_rate peak_learning_rate initial_learning_rate",
    "log2 rate": "log2_lr lr_log2 log2_learning_rate log2lr",
    "log10 rate": "log10_lr lr_log10 log10_learning_rate log10lr",
    "ln rate": "ln_lr lr_ln ln_learning_rate loge_lr log_e_lr lnlr",
    "log rate": "log_lr lr_log log_learning_rate loglr",
    "seed": "seed random_seed rng_seed seeds rng replicate rep trial_seed global_seed",
    "width": "width w d d_model dmodel n_embd hidden_size hidden hidden_dim h dim embed_dim model_dim model_width",
    "depth": "depth L n_layer n_layers num_layers numl layers num_hidden_layers n_blocks",
    "experts": "experts E n_experts num_experts n_routed_experts num_local_experts",
    "top_k": "top_k topk k num_experts_per_tok n_active activated",
    "batch": "batch B bs batch_size global_batch_size batchsize tokens_per_step",
    "tokens": "tokens D n_tokens train_tokens num_tokens token_budget total_tokens max_tokens",
    "steps": "steps T ti n_steps num_steps train_steps total_steps max_steps iterations iters num_iterations",
    "parameters": "params N n_params num_params parameters num_parameters model_size size",
    "time": "step _step global_step trainer/global_step iteration training_iteration iter epoch _timestamp",
    "name": "name run run_name exp_name experiment trial trial_id trial_name run_id custom_run_id",
    "state": "state status",
    "bookkeeping": "id created runtime duration user notes tags sweep sweep_id group job_type hostname number "
    "date time datetime_start datetime_complete timestamp pid node_ip done updated owner running_time "
    "commit creation_time ended_at",
}
MEANINGS = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_FOLDER = re.compile(
    r"^(?:(?:config|configs|params|parameters|hparams|hyperparameters|user_attrs|summary|summary_metrics|sys|args|"
    r"optimizer|optim|model|trainer|training|data)[./_:])+"
)
_UNIT = re.compile(r"\s*[(\[][^()\[\]]*[)\]]\s*$")
_FACTOR = re.compile(r"[(\[]\s*[x×*]?\s*(?:10\s*(?:\^|\*\*)?\s*|1e)([-+]?\d+)\s*[)\]]\s*$", re.IGNORECASE)  # noqa: RUF001
_PLAIN = str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789")  # noqa: RUF001, what people paste
_TIMES_TEN = re.compile(r"\s*[x×*·]\s*10\s*(?:\^|\*\*)?\s*[({]?([-+]?\d+)[)}]?")  # noqa: RUF001


def short(column: str) -> str:
    """A column's name without folders and endings: ``config.optimizer.lr.value`` and ``params_lr`` are ``lr``."""
    name = re.sub(r"\s*(\((last|min|max)\)|[./]value)$", "", column.strip())
    name = re.sub(r"[\s()↓↑-]+", "_", name).strip("_") or name
    name = name if name in MEANINGS else name.lower()
    inner = _FOLDER.sub("", name) or name
    tail = re.split(r"[./:]", inner)[-1]
    if inner != name and inner not in MEANINGS and tail in MEANINGS:
        return tail  # however deep in the configuration
    if inner not in MEANINGS and (plain := _UNIT.sub("", column.strip())) not in ("", column.strip()):
        bare = short(plain)  # what stands in brackets is a unit
        return bare if bare in MEANINGS else inner
    return inner


def factor_of(column: str) -> float:
    """What to multiply the cells of ``lr (x1e-4)`` by. ``lr (x1e4)`` says that they were multiplied already."""
    found = _FACTOR.search(column.translate(_PLAIN))
    return 10.0 ** -abs(int(found[1])) if found else 1.0


def meaning_of(column: str) -> str:
    """What a column is by its name: a key of ``_WORDS``, or empty."""
    return MEANINGS.get(short(column), "")


def names_of(frame: pd.DataFrame) -> list[str]:
    """The names of all columns."""
    return [str(name) for name in frame.columns]


def number_of(cell: object) -> float | None:
    """The number in a cell: NaN if it is empty, infinity if it says that the run diverged, None if it is text."""
    text = re.sub(r"^[*`_$'\"]+|[*`_$'\"]+$", "", str(cell).translate(_PLAIN).strip()).strip()
    key, sign, value = text.partition("=")
    text = value.strip() if sign and meaning_of(key) else text  # "lr=1e-3" as a cell
    if text.lower() in _EMPTY:
        return math.nan
    if text.lower() in _DIVERGED:
        return math.inf
    if re.fullmatch(r"(?:nan|inf|-)?\s*[(\[]\s*(?:diverged|failed|crashed|oom)\s*[)\]]", text.lower()):
        return math.inf
    if part := re.fullmatch(r"1\s*/\s*([1-9]\d*)", text):
        return 1 / int(part[1])
    text = re.sub(rf"^([-+]?\d+\.?\d*){_TIMES_TEN.pattern}$", r"\1e\2", text)
    found = _CELL.fullmatch(text)
    return None if found is None else _value(found[1]) * _UNITS[found[2]]


def _value(text: str) -> float:
    base, power, exponent = re.sub(r"[(){}]", "", text).replace("**", "^").partition("^")
    try:
        return float(base) ** float(exponent) if power else float(base)
    except OverflowError:
        return math.inf


def numeric(column: "pd.Series") -> "pd.Series":
    """The column as numbers if every cell is one or empty, else as it is."""
    if pd.api.types.is_bool_dtype(column):
        return column
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)
    cells = [math.nan if cell is None or cell is pd.NA else number_of(cell) for cell in column]
    return column if None in cells else pd.Series(cells, index=column.index, dtype=float)


def values_in(name: str) -> dict[str, float]:
    """What a run's name says: ``run_w128-lr1e-3`` is {"w": 128, "lr": 0.001}. The first of a key counts."""
    found: dict[str, float] = {}
    for key, text in _KEY_VALUE.findall(name):
        parts = re.split(r"[_ ]+", key.strip("_ "))
        tails = ["_".join(parts[at:]) for at in range(len(parts))]
        found.setdefault(next((tail for tail in tails if short(tail) in MEANINGS), tails[0]), _value(text))
    return found


def by_pattern(pattern: str, names: "pd.Series") -> pd.DataFrame:
    """What ``pattern``, such as ``w{width}-lr{lr}``, finds in each name. JudgeError if some name does not fit it."""
    parts = re.split(r"\{(.*?)\}", pattern)
    keys = parts[1::2]
    if not keys or len(set(keys)) < len(keys) or not all(key.isidentifier() for key in keys):
        raise JudgeError(f"--pattern {pattern!r}: must have different names in braces, such as w{{width}}-lr{{lr}}")
    groups = (rf"(?P<{part}>{_VALUE}|[A-Za-z]\w*?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    found = names.astype(str).str.extract(re.compile("".join(groups) + ("" if parts[-1] else r"(?!\w)")))
    if (lost := found.isna().any(axis=1)).any():
        raise JudgeError(f"--pattern {pattern!r}: does not fit the name {str(names[lost].iloc[0])!r}")
    return found.apply(numeric)

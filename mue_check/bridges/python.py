"""The Python that several formats share: roles by name, parameter groups, initial values."""

from collections.abc import Iterable, Iterator, Mapping

from mue_check.bridges.sheet import Sheet
from mue_check.rules import Role

_WIDTH = 118

FUNCTIONS = '''
def role_of(name):
    for pattern, role in NAMES:
        if re.search(pattern, name):
            return role
    raise LookupError(f"{name}: no role. Give it one with --roles FILE.toml; for a dense layer of a mixture, or other "
                      "layers that the target does not describe, use mue_check.param_groups")


def roles_of(model):
    """(parameter, role) for every parameter. One that is tied must have the same values under both names."""
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        role = role_of(name)
        first = found.setdefault(id(parameter), (parameter, role))[1]
        if (VALUES[first], INIT_STD.get(first)) != (VALUES[role], INIT_STD.get(role)):
            raise ValueError(f"{name} is tied: as {first} and as {role} it needs different values. Untie it")
    return list(found.values())


def param_groups(model):
    """Groups for torch.optim.AdamW: every trainable parameter in one."""
    groups = {}
    for parameter, role in roles_of(model):
        if parameter.requires_grad:
            groups.setdefault(role, {"params": [], "name": role, **VALUES[role]})["params"].append(parameter)
    return list(groups.values())


@torch.no_grad()
def init_parameters(model, generator=None):
    """Draw matrices, and set biases to 0. Norm gains stay what the model makes them."""
    for parameter, role in roles_of(model):
        if role in INIT_STD:
            parameter.normal_(std=INIT_STD[role], generator=generator)
'''


def comment(lines: Iterable[str]) -> list[str]:
    """Comment lines, broken at words."""
    out = []
    for line in lines:
        row = "#"
        for word in line.split():
            if len(row) + len(word) >= _WIDTH:
                out.append(row)
                row = "#  "
            row += f" {word}"
        out.append(row)
    return out


def regex(expression: str) -> str:
    """A Python literal, raw where that is possible."""
    return repr(expression) if '"' in expression else f'r"{expression}"'


def number(value: float) -> str:
    """A Python literal, to 12 digits."""
    return repr(float(f"{value:.12g}"))


def values_of(sheet: Sheet) -> Mapping[str, Mapping[str, str]]:
    """Label -> the arguments of AdamW as literals."""
    return {
        line.label: {
            "lr": number(line.row.lr),
            "weight_decay": number(line.row.weight_decay),
            "eps": number(line.row.eps),
            "betas": f"({number(line.row.beta1)}, {number(line.row.beta2)})",
        }
        for line in sheet.lines
    }


def tables(sheet: Sheet) -> Iterator[str]:
    """VALUES, INIT_STD and NAMES."""
    yield "VALUES = {"
    for label, values in values_of(sheet).items():
        yield f"    {label!r}: {{{', '.join(f'{key!r}: {value}' for key, value in values.items())}}},"
    yield "}"
    yield "INIT_STD = {"
    for line in sheet.lines:
        if line.label != Role.NORM_GAIN:
            yield f"    {line.label!r}: {number(line.row.init_std)},"
    yield "}"
    yield "NAMES = [  # the first pattern that is found in a parameter's name decides"
    yield from (f"    ({regex(expression)}, {label!r})," for expression, label in sheet.names)
    yield "]"


def module(sheet: Sheet, cannot: Iterable[str], body: str, *, imports: Iterable[str] = ()) -> str:
    """A whole Python module: header, tables, shared functions, and the body of the format."""
    lines = [
        *comment([*sheet.header(), *cannot]),
        "import re",
        "",
        "import torch",
        *imports,
        "",
        *tables(sheet),
        "",
        FUNCTIONS,
        "",
        body.strip("\n"),
    ]
    return "\n".join(lines) + "\n"

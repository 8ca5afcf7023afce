"""How questions appear in tables and figures: common columns, headings, groups, and one color for each rung."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from mue_check.judge.verdict import Verdict
from mue_check.questions.question import F
from mue_check.report.format import in_words
from mue_check.report.palette import REFERENCE, TARGETS, shorten
from mue_check.spec import is_diffusion
from mue_check.study.comparison import DEFAULT_ROUTER, NO_UNIT, Comparison


class HasComparison(Protocol):
    """Anything with a comparison."""

    @property
    def comparison(self) -> Comparison:
        """The question."""


_Item = TypeVar("_Item")
_Q = TypeVar("_Q", bound=HasComparison)
Key = tuple[str, ...]
_LONG = {"lr": "learning rate"}
_SHORT = {"weight_decay": "wd"}


def knob_name(knob: str, *, short: bool = False) -> str:
    """The swept value in words: ``lr:feed_forward`` is "feed-forward learning rate"."""
    quantity, _, group = knob.partition(":")
    name = (_SHORT if short else _LONG).get(quantity, in_words(quantity))
    return f"{in_words(group.replace('feed_forward', 'feed-forward'))} {name}".strip()


def ladder_name(comparison: Comparison) -> str:
    """The ladder, marked where the question is a control."""
    return in_words(comparison.ladder) + (" (control)" if comparison.is_control else "")


def heading(comparison: Comparison) -> str:
    """``width on markov, rule complete_mue``, with the swept value and the router where they are not the defaults."""
    value = "" if comparison.knob == "lr" else f", {knob_name(comparison.knob)}"
    router = "" if comparison.router == DEFAULT_ROUTER else f", router {shorten(comparison.router, 30)}"
    where = f"{shorten(in_words(comparison.ladder), 30)} on {shorten(comparison.corpus, 30)}"
    return f"{where}, rule {shorten(comparison.rule, 30)}{value}{router}"


def setting_of(comparison: Comparison) -> Key:
    """What the questions along one ladder share."""
    return comparison.ladder, comparison.corpus, comparison.rule, comparison.router


def question_columns(found: Sequence[_Q], *, target: bool = True) -> dict[str, Callable[[_Q], str]]:
    """Ladder, target, corpus and rule of a question; swept value and router only where they differ."""
    columns: dict[str, Callable[[_Q], str]] = {"axis": lambda f: in_words(f.comparison.ladder)}
    if any(f.comparison.knob != "lr" for f in found):
        columns["value"] = lambda f: knob_name(f.comparison.knob)
    if target:
        columns["target"] = lambda f: f.comparison.sides[-1].label
    columns["corpus"] = lambda f: f.comparison.corpus
    columns["rule"] = lambda f: f.comparison.rule
    if len({f.comparison.router for f in found}) > 1:
        columns["router"] = lambda f: f.comparison.router
    return columns


def in_unit_of(comparisons: Iterable[Comparison], text: str) -> str:
    """The text, with "nats" replaced by the unit in which these models' losses are measured."""
    units = list(dict.fromkeys(map(_unit, comparisons)))
    if units == ["nats"]:
        return text
    text = text.replace(" per token", "")
    if units == [NO_UNIT]:  # the user named no unit
        return text.replace(", nats", f", {NO_UNIT}").replace(" (nats)", "").replace(" nats", "")
    return text.replace("nats", " or ".join(units))


def _unit(comparison: Comparison) -> str:
    return comparison.loss_unit or ("MSE" if is_diffusion(comparison.sides[-1].model) else "nats")


def count_text(verdicts: Iterable[Verdict]) -> str:
    """``3 PASS, 1 INCONCLUSIVE``."""
    found = list(verdicts)
    return ", ".join(f"{found.count(verdict)} {verdict.value}" for verdict in Verdict if verdict in found)


def merged(found: Iterable[F]) -> list[F]:
    """Merge the findings of rules that coincide into one finding that names them all.

    Rules coincide where they prescribe the same for every side of a question: the same cells then answer it.
    """
    groups: dict[object, list[F]] = {}
    for each in found:
        c = each.comparison
        same = replace(c, name="", rule="", command="", expected="") if not c.is_control else c
        groups.setdefault(same, []).append(each)
    return [_as_one(group) for group in groups.values()]


def _as_one(group: Sequence[F]) -> F:
    # expectations are of the rule under test alone
    first = next((each for each in group if each.comparison.expected), group[0])
    rules = ", ".join(dict.fromkeys(each.comparison.rule for each in (first, *group)))
    return first if len(group) == 1 else replace(first, comparison=replace(first.comparison, rule=rules))


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Color by (ladder, router, rung label): the reference of one ladder is a target of another."""

    colors: Mapping[tuple[str, str, str], str]

    @classmethod
    def of_study(cls, comparisons: Iterable[Comparison]) -> "Palette":
        """References are black. A target keeps its color from ladder to ladder, unless that is taken on one of them.

        Controls have the color of their rung.
        """
        ladders: dict[tuple[str, str], dict[str, int]] = {}
        references: dict[tuple[str, str], set[str]] = {}
        for c in comparisons:
            sizes = ladders.setdefault((c.ladder, c.router), {})
            sizes.update({side.label: side.size for side in c.sides})
            if len(c.sides) > 1:
                references.setdefault((c.ladder, c.router), set()).add(c.sides[0].label)
        usual: dict[str, str] = {}
        colors: dict[tuple[str, str, str], str] = {}
        for ladder, sizes in ladders.items():
            black = references.get(ladder, set())
            colors.update({(*ladder, label): REFERENCE for label in sorted(black)})
            taken: set[str] = set()
            for at, label in enumerate(sorted(sizes.keys() - black, key=lambda name: (sizes[name], name))):
                candidates = (usual.get(label), *TARGETS)
                color = next((c for c in candidates if c and c not in taken), TARGETS[at % len(TARGETS)])
                usual.setdefault(label, color)
                taken.add(color)
                colors[*ladder, label] = color
        return cls(colors=colors)

    def of(self, comparison: Comparison, label: str) -> str:
        """The color of a rung that a question names."""
        return self.colors[comparison.ladder, comparison.router, label]


def non_defaults(c: Comparison) -> Key:
    """The swept value and the router where they are not the defaults: such questions get separate pictures."""
    knob = (c.knob.replace(":", "-"),) if c.knob != "lr" else ()
    return (*knob, *((c.router,) if c.router != DEFAULT_ROUTER else ()))


def ladder_key(c: Comparison) -> Key:
    """What the questions in one picture share, for its file name."""
    return c.ladder, c.corpus, c.rule, *non_defaults(c)


def figure_title(what: str, key: Key) -> str:
    """``Drift along width, markov, complete_mue``."""
    return f"{what} along {in_words(key[0])}" + "".join(f", {name}" for name in key[1:])


def along_ladders(found: Iterable[_Q]) -> Iterable[tuple[Key, list[_Q]]]:
    """The findings ladder by ladder."""
    return grouped(found, lambda f: ladder_key(f.comparison))


def grouped(found: Iterable[_Item], key: Callable[[_Item], Key]) -> Iterable[tuple[Key, list[_Item]]]:
    """The items by key, in the order in which the keys first appear."""
    groups: dict[Key, list[_Item]] = {}
    for item in found:
        groups.setdefault(key(item), []).append(item)
    return groups.items()

"""SPEC: a model and its training as one line of ``key=value`` pairs, or as a TOML file, as people write them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from mue_check.errors import SpecError, unknown
from mue_check.input_files import read_toml
from mue_check.loads import read_load
from mue_check.routing.variants import get_variant
from mue_check.spec import REFERENCE_HEAD_WIDTH, Dense, DiffusionSpec, Experts, ModelSpec, Scenario

_KEYS = {
    "d": "width",
    "L": "depth",
    "H": "dense feed-forward width",
    "h": "expert width",
    "dh": "head width",
    "B": "tokens per step",
    "T": "steps",
    "experts": "notation such as 128e8a1s",
    "router": "routing variant",
    "balance": "load balancing",
    "load": "target load such as zipf:1, or a file of one number per expert",
    "patch": "edge of a patch, or frames x edge such as 3x2; makes it a diffusion transformer",
    "gates": "of a diffusion transformer: zero or drawn",
    "labels": "likewise: on or off",
    "modulation": "likewise: shared or own",
}
_ALIASES = {
    **dict.fromkeys(("d_model", "width", "hidden_size", "n_embd"), "d"),
    **dict.fromkeys(("depth", "n_layers", "n_layer", "num_layers", "num_hidden_layers"), "L"),
    **dict.fromkeys(("d_ff", "intermediate_size"), "H"),
    **dict.fromkeys(("d_expert", "moe_intermediate_size"), "h"),
    **dict.fromkeys(("d_head", "head_dim", "head_width"), "dh"),
    **dict.fromkeys(("batch", "batch_tokens", "tokens_per_step"), "B"),
    "steps": "T",
}
"""What configurations and papers call the keys."""
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_NUMBER = re.compile(rf"(\d[\d_]*(?:\.\d+)?)({'|'.join(_UNITS)})", re.ASCII)
_SWITCHES: Mapping[str, tuple[str, Mapping[str, bool]]] = {
    "gates": ("zero_gates", {"zero": True, "drawn": False}),
    "labels": ("labels", {"on": True, "off": False}),
    "modulation": ("shared_modulation", {"shared": True, "own": False}),
}
_WORDS = ("experts", "router", "balance", "load", "patch", *_SWITCHES)


@dataclass(kw_only=True)
class _Draft:
    """The numbers and words of a SPEC by key, before they are checked."""

    numbers: dict[str, int] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, value: object, text: str) -> None:
        key = _ALIASES.get(key, key)
        if key not in _KEYS:
            meanings = "; ".join(f"{name}: {meaning}" for name, meaning in _KEYS.items())
            raise SpecError(f"SPEC {text!r}: {unknown('key', key, [*_KEYS, *_ALIASES])} ({meanings})")
        if key in self.numbers or key in self.words:
            raise SpecError(f"{key!r} appears twice in SPEC {text!r}")
        if key in _WORDS:
            self.words[key] = str(value)
            return
        number = _whole_number(str(value))
        if number is None:
            raise SpecError(f"{key}={value!r} in SPEC {text!r}: must be a whole number, such as 4096, 4k or 4Ki")
        self.numbers[key] = number


def _whole_number(text: str) -> int | None:
    """``4M`` is 4,000,000 and ``4Mi`` is 4 * 2**20; None if the text is no whole number."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    number = Fraction(match[1]) * _UNITS[match[2]]
    return int(number) if number.denominator == 1 else None


def parse_scenario(text: str, *, default: Scenario | None = None, head_width: int = REFERENCE_HEAD_WIDTH) -> Scenario:
    """Read a SPEC: ``key=value`` pairs joined by commas, or the path of a TOML file with the same keys.

    ``default`` supplies the keys that the text leaves out (a target takes them from its reference). Without a
    default, the expert width is the model's width d, and the head width is ``head_width``. Raises SpecError.
    """
    return _build(_read(text), text, default, head_width)


def says(text: str, key: str) -> bool:
    """Whether a SPEC sets this number, such as "dh". Raises SpecError."""
    return key in _read(text).numbers


def _read(text: str) -> _Draft:
    draft = _Draft()
    if text.endswith(".toml"):
        table = read_toml(Path(text), f"SPEC file {text!r}", SpecError)
        for key, value in table.items():
            draft.put(key, value, text)
    else:
        for part in text.split(","):
            key, sign, value = part.strip().partition("=")
            if sign:
                draft.put(key.strip(), value.strip(), text)
            else:
                draft.put("experts", key, text)
    return draft


def _build(draft: _Draft, text: str, default: Scenario | None, head_width: int) -> Scenario:
    old = default.model if default else None
    words = {key: draft.words.pop(key) for key in ("patch", *_SWITCHES) if key in draft.words}
    if words and "patch" not in words and not isinstance(old, DiffusionSpec):
        raise SpecError(f"SPEC {text!r} gives {', '.join(words)}, but no patch ({_KEYS['patch']})")

    def number(key: str, fallback: int | None) -> int:
        value = draft.numbers.get(key, fallback)
        if value is None:
            raise SpecError(f"SPEC {text!r} lacks {key} ({_KEYS[key]})")
        return value

    width = number("d", old.width if old else None)
    feed_forward: Dense | Experts
    notation = draft.words.pop("experts", None)
    if notation is not None:
        if "H" in draft.numbers:
            raise SpecError(f"SPEC {text!r} gives H (dense) and {notation} (experts): choose one")
        mixture = old.feed_forward if old and isinstance(old.feed_forward, Experts) else None
        feed_forward = Experts.from_notation(notation, hidden=number("h", mixture.hidden if mixture else width))
        if mixture:
            feed_forward = replace(feed_forward, router=mixture.router, balance=mixture.balance, load=mixture.load)
    elif "H" in draft.numbers:
        if "h" in draft.numbers:
            raise SpecError(f"SPEC {text!r} gives both h (expert width) and H (dense): h needs a notation such as 8e2a")
        feed_forward = Dense(hidden=draft.numbers["H"])
    elif old is None:
        raise SpecError(f"SPEC {text!r} lacks a feed-forward: give H=<width> or a notation such as 128e8a1s")
    elif "h" in draft.numbers:
        if isinstance(old.feed_forward, Dense):
            raise SpecError(f"SPEC {text!r} gives h (expert width), but neither it nor its reference has experts")
        feed_forward = replace(old.feed_forward, hidden=draft.numbers["h"])
    else:
        feed_forward = old.feed_forward
    if draft.words:
        if isinstance(feed_forward, Dense):
            raise SpecError(f"SPEC {text!r} gives {', '.join(draft.words)}, but its feed-forward is dense")
        router, load = (draft.words.get(key, getattr(feed_forward, key)) for key in ("router", "load"))
        if load and Path(load).is_file():  # cells store the numbers, not the path
            load = "/".join(f"{share:.6g}" for share in read_load(load, feed_forward.total))
        steered = "selection_bias" if load and get_variant(router).scored else feed_forward.balance
        feed_forward = replace(feed_forward, router=router, balance=draft.words.get("balance", steered), load=load)
    family: Callable[..., ModelSpec] = DiffusionSpec if words else ModelSpec
    if isinstance(old, DiffusionSpec):
        family = partial(replace, old)
    model = family(
        width=width,
        depth=number("L", old.depth if old else None),
        feed_forward=feed_forward,
        head_width=number("dh", old.head_width if old else head_width),
        **_diffusion(words, text),
    )
    return Scenario(
        model=model,
        tokens_per_step=number("B", default.tokens_per_step if default else 1),
        steps=number("T", default.steps if default else 1),
    )


def _diffusion(words: Mapping[str, str], text: str) -> dict[str, int | bool]:
    """What the words of a SPEC say about the fields of a DiffusionSpec."""
    said: dict[str, int | bool] = {}
    for key, word in words.items():
        if key == "patch":
            match = re.fullmatch(r"(?:(\d{1,9})x)?(\d{1,9})", word, re.ASCII)
            if match is None:
                raise SpecError(f"patch={word!r} in SPEC {text!r}: must be an edge such as 2, or frames x edge as 3x2")
            said |= {"frames_per_patch": int(match[1] or 1), "patch": int(match[2])}
            continue
        name, meaning = _SWITCHES[key]
        if word not in meaning:
            raise SpecError(f"{key}={word!r} in SPEC {text!r}: must be {' or '.join(meaning)}")
        said[name] = meaning[word]
    return said

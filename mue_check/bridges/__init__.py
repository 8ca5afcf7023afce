"""What a rule prescribes, in a form to paste or load: Python for torch, transformers, mup, Megatron-LM and torchtitan.

Each format is one file with ``render``. It states in comments what the format cannot express.
"""

from importlib import import_module

from mue_check.bridges.sheet import Sheet


def render(name: str, sheet: Sheet) -> str:
    """The text of one format."""
    text: str = import_module(f"mue_check.bridges.for_{name}").render(sheet)
    return text


__all__ = ["Sheet", "render"]

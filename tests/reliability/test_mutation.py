"""The page on mutation testing counts what survives."""

import json
from pathlib import Path

from tests.reliability.mutation import Equivalent, Survivor, read_results, reason_of, section

SAME = Equivalent(before=r"strict=True", after=r"strict=False", reason="equally long")


def test_survivors_count_against_the_score_unless_they_make_no_difference(tmp_path: Path) -> None:
    folder = tmp_path / "mue_check" / "judge"
    folder.mkdir(parents=True)
    codes = {"a": 1, "b": 0, "c": 36, "d": 0, "e": 33, "f": None}
    (folder / "law.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    diffs = {"b": "-  zip(x, strict=True)\n+  zip(x, strict=False)", "d": "-  a < b\n+  a <= b", "e": "-  1\n+  2"}
    total, survivors = read_results(tmp_path, lambda name: f"--- x\n+++ x\n@@ -1 +1 @@\n{diffs[name]}\n")
    assert total == {"mue_check/judge/law.py": 5, "not run": 1}
    assert survivors[0] == Survivor(
        file="mue_check/judge/law.py", before="zip(x, strict=True)", after="zip(x, strict=False)"
    )
    assert [reason_of(each, [SAME]) for each in survivors] == ["equally long", None, None]
    text = section(total, survivors, [SAME])
    assert text.startswith("50.0% of the mutants that make a difference are killed. 1 more were not run.\n")
    assert "| all | 5 | 1 | 2 | 50.0% |" in text
    assert "| mue_check/judge/law.py | 5 | 1 | 2 | 50.0% |" in text
    assert "- 1: equally long" in text
    assert "- mue_check/judge/law.py: `` a < b `` -> `` a <= b ``" in text

"""BUGS: rows 1 to 28 of the table of bugs that really happened, as candidates with that one mistake.

Rows 23 (an optimizer that holds parameters which are no longer the model's, deepspeedai/DeepSpeed PR#8354) and 24
(3-D expert parameters missed by matching names or types, unsloth PR#11014) are mistakes of an optimizer: no router,
block or loss can have them. They are kept with the audit of optimizers, and nothing is registered for them here.
"""

from mue_check.mutants.routing.broken_auxiliary import AUXILIARY
from mue_check.mutants.routing.broken_experts import EXPERTS
from mue_check.mutants.routing.broken_gates import GATES
from mue_check.mutants.routing.broken_selection import SELECTION
from mue_check.mutants.routing.broken_state import STATE

BUGS = tuple(sorted((*GATES, *SELECTION, *AUXILIARY, *STATE, *EXPERTS), key=lambda bug: bug.row))

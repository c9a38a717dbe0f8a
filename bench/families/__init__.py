"""Model families, a file each: found like methods, by the folder they lie in, by `--plugins`, and by entry points.

Settings and records call the projections of a decoder block by the names below, whatever the family.
"""

from typing import Literal, get_args

ProjectionName = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Q: ProjectionName = "q_proj"
K: ProjectionName = "k_proj"
V: ProjectionName = "v_proj"
O: ProjectionName = "o_proj"  # noqa: E741  the field's name
GATE: ProjectionName = "gate_proj"
UP: ProjectionName = "up_proj"
DOWN: ProjectionName = "down_proj"

PROJECTIONS: tuple[ProjectionName, ...] = get_args(ProjectionName)
"""In the order of execution."""

ATTENTION, MLP = PROJECTIONS[:4], PROJECTIONS[4:]

DEFAULT = "llama"
"""The family of a shape or config that names none."""

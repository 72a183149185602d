"""What a config's compiled training step does, here or on other hardware, told from shapes: cost, frozen work, memory."""

from jaxft.explain.ahead import Ahead, PhaseAhead, compile_for
from jaxft.explain.explain import Explanation, PhaseExplanation, explain_step
from jaxft.explain.step import Cost, compile_step
from jaxft.explain.verdict import Verdict, Work

__all__ = [
    "Ahead",
    "Cost",
    "Explanation",
    "PhaseAhead",
    "PhaseExplanation",
    "Verdict",
    "Work",
    "compile_for",
    "compile_step",
    "explain_step",
]

"""What a config's compiled training step does, told from shapes alone: cost, frozen work, memory."""

from jaxft.explain.explain import Explanation, PhaseExplanation, explain_step
from jaxft.explain.step import Cost, compile_step
from jaxft.explain.verdict import Verdict, Work

__all__ = ["Cost", "Explanation", "PhaseExplanation", "Verdict", "Work", "compile_step", "explain_step"]

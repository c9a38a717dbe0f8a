"""Tiny random LLaMAs: those of the conformance kit."""

from bench.conformance.tiny import make_checkpoint, make_model, make_tokenizer

__all__ = ["make_checkpoint", "make_model", "make_tokenizer"]

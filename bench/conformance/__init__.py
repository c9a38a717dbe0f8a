"""The conformance kit: what every method must do, checked on tiny random models. `leanboard test-method` runs it.

tiny      the models, made on the spot
trial     a method under test, taken through the harness as a user's run would take it
declared  what is asked of what it says of itself: metadata, settings, presets, card
checks    what is asked of it at work, one function per question
oracle    what a pruned model must compute, from the dense one
reload    a process of its own that loads what was saved
kit       all of it, one outcome per check
"""

"""The conformance kit: what every method must do, checked on tiny random models. `leanboard test-method` runs it.

tiny     the models, made on the spot
trial    a method under test, taken through the harness as a user's run would take it
checks   what is asked of it, one function per question
reload   a process of its own that loads what was saved
kit      all of it, one outcome per check
"""

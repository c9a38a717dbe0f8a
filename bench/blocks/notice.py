"""A text that informs the model that it is being pruned.

It stands before training examples where a method asks for it, and before the contexts of a task whose protocol is
`0shot+notice`.

Source: the collaborative prompt of Compresso (arXiv 2310.05015), §3.3; the wording is our own.
"""

NOTICE = (
    "Before you read on, here is a notice about your own state. You are a large language model, and you are being "
    "pruned: attention heads, intermediate channels and hidden dimensions that seem to matter least are taken out of "
    "your network, so that you need less memory, less energy and less time, and can run where resources are scarce. "
    "The pruning is gradual, and while it goes on your remaining weights are tuned, so that what you know and what you "
    "can do is kept as well as possible. This only works if you take part in it. Please rely on the parts of yourself "
    "that remain, make up for those that are gone, and keep your answers as accurate, clear and useful as they were "
    "before. Take this notice into account, think about the task with care, and then respond to what follows.\n\n"
)

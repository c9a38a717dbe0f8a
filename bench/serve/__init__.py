"""What makes checkpoints useful elsewhere: the plug-in for vLLM, and folders that other tools load."""

"""The demonstration: the main job on real digits, with real processes, verified step by step."""

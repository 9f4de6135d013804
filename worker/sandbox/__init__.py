"""A sandbox: one container, the runner inside it, and the wire between."""

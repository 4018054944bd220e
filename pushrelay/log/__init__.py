"""The operator's log: it never blocks, it is bounded, and every refusal in it names its fix."""

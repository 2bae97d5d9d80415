"""Memory: what a step holds, counted."""

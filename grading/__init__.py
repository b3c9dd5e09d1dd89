"""Handing the course out and grading what comes back. Uses `course`, and nothing uses it."""

"""What all lessons share and none of them teaches: which model, pictures and video, self-checks.

Nothing is imported here, so that `course.setup` runs before anything is installed.
"""

"""What is published from the repository: the demo page, regenerated images, README figures."""

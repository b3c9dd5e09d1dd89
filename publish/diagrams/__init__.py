"""The diagrams of the lessons, as SVG files in assets/diagrams."""

"""`python -m publish.diagrams`: write the diagrams of the lessons to assets/diagrams."""

from publish.diagrams.catalog import write_diagrams

if __name__ == "__main__":
    write_diagrams()

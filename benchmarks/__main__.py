"""Everything about speed, beside the public peers: `make bench`, with plots; needs a GPU.

Two GPUs measure how the work scales. Without a GPU it is a rehearsal at toy size.
"""

from benchmarks import kernels, plots, roofline, speed, task2, task3
from course.figures import machine


def main() -> None:
    """Run the benchmarks one after the other, and draw the plots of all stored rows."""
    print(machine())
    speed.main([])
    roofline.main([])
    task2.main(["large", "processes"])
    task3.main(["step", "scaling"])
    kernels.main([])
    plots.main()


if __name__ == "__main__":
    main()

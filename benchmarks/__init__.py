"""Speed, exactness and scale, measured: each module prints its figures and stores them in results/."""

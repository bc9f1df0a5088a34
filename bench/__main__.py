"""`python -m bench` is `gentron-bench`; torchrun starts it so: `torchrun -m bench compbench`."""

from bench.cli import main

main()

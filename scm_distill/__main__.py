"""`python -m scm_distill`, for torchrun and accelerate launch."""

from scm_distill.cli.app import main

main()

"""What the commands of the command line do, as functions; `scm_distill` offers them to Python."""

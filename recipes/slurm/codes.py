"""Exit codes between a job script and `python -m recipes.slurm.job`, by what the script has to do."""

done = 10  # nothing is left to do
elsewhere = 11  # start again on other nodes
again = 20  # start again

"""Stages as jobs of a Slurm cluster: scripts, submission, state, and what runs inside a job beside the stage."""

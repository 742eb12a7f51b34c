"""What a pipeline costs before it is submitted: memory, steps, hours, disk; and layouts that would fit. No torch.

architecture.py counts parameters as megatron-core shards them, settings.py reads a stage's layout, memory.py adds up
bytes, work.py adds up time, layouts.py searches, plan.py puts a pipeline together and table.py prints it.
docs/planner.md says what is measured and what is not.
"""

"""What each `align` command does: `function(args) -> exit code`."""

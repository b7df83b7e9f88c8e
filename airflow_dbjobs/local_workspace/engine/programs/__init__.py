"""What runs in the process of a task, by kind of program: each module has `run(program, folder)`."""

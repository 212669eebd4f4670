"""The limits of a job: memory, address space, CPUs and threads."""

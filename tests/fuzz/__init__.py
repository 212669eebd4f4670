"""Fuzzing of everything that reads a file: ``python -m tests.fuzz --minutes N``.

`readers` lists all readers, each with sound files; those of digit files are in `digit_readers`, those with which the
fuzzer is tested in `obedient`. `mutations` alters the files; `cases` reads an altered file and judges what came;
`watch` runs cases in a process of their own, so that a crash or a hang is found too.
"""

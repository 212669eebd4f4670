"""Fuzzing of everything that reads a file: ``python -m tests.fuzz --minutes N``.

`readers` lists what reads files, each with sound files; `mutations` alters these; `cases` reads an altered file and
judges what came; `watch` runs cases in a process of their own, so that a crash or a hang is found too.
"""

"""Faults on purpose: a proxy that loses replies, a witness outside Redis, and a checker that adds up.

What the project's own chaos tests use, and what users can point at their own tasks: submit a job whose function calls
:func:`witness.note`, kill things, then let :func:`check.check` say what was executed, committed, lost or counted twice.
"""

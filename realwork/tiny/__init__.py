"""A real model of 135 million parameters behind an OpenAI-compatible server on loopback, for trying token capture.

It needs the optional extra `tiny`. Nothing that it writes is of any use but its form: tool calls are always valid.
"""

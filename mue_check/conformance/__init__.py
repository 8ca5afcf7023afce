"""Conformance: is this router or block what it claims to be, and will tuned values carry over to it?"""

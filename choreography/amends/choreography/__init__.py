"""Choreography: services that react to each other's domain events.

This root is reserved for it; nothing is public here yet.
"""

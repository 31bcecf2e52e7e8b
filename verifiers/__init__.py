"""Verifiers: who could still recognise this?"""

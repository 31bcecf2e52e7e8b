"""Detectors: where in a picture is somebody?"""

"""Certificates: chosen by SNI, reloaded while serving, the last good ones kept."""

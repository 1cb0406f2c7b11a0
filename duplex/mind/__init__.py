"""Minds that think what the agent says: a large text model in this process, or at a URL."""

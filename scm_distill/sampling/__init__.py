"""Running pipelines, students and teachers alike."""

"""What the two pools hold: which classes, how unevenly, which labels are wrong, what is foreign."""

"""The command that says which images to label next, and which labels to look at again."""
